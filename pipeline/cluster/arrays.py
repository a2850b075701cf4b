"""Seeds and sweeps: one config becomes several runs, each with a name of its own."""

import itertools
import re

from pipeline.config import UserError

MOST = 1000
"""Tasks of one array: SLURM's own default limit."""


def variants(sweeps: list[str]) -> list[tuple[str, list[str]]]:
    """Of ``key=a,b`` words every combination: what is added to the run's name, and the overrides.

    ``seed=0..4`` are five seeds. One nameless variant, if nothing is swept.

    :raises UserError: a word is no sweep, sweeps a key twice, or there are too many combinations.
    """
    swept: dict[str, list[str]] = {}
    for word in sweeps:
        key, found, told = word.partition("=")
        if not found or not key or not told:
            raise UserError(f"--array {word}: write KEY=VALUE,VALUE,... as in seed=0..4 or optim.lr=0.1,0.2")
        if key in swept:
            raise UserError(f"--array {word}: {key} is swept twice; write all its values after one")
        swept[key] = _values(word, told)
    total = 1
    for values in swept.values():
        total *= len(values)
    if total > MOST:
        raise UserError(f"--array: {total:,} combinations; an array may have {MOST:,} tasks")
    found = []
    for values in itertools.product(*swept.values()):
        pairs = list(zip(swept, values, strict=True))
        label = "".join(
            f"-{key.rpartition('.')[2]}{re.sub(r'[^A-Za-z0-9._]', '_', value)}" for key, value in pairs
        )
        found.append((label, [f"{key}={value}" for key, value in pairs]))
    if len({label for label, _ in found}) < len(found):
        raise UserError("--array: two combinations would have the same run's name; give each its own values")
    return found


def _values(word: str, told: str) -> list[str]:
    if span := re.fullmatch(r"(\d+)\.\.(\d+)", told):
        first, last = map(int, span.groups())
        if last < first:
            raise UserError(f"--array {word}: runs backwards; write {last}..{first}")
        return [str(number) for number in range(first, last + 1)]
    values = told.split(",")
    if "" in values or len(set(values)) < len(values):
        raise UserError(f"--array {word}: a value is missing or there twice")
    return values
