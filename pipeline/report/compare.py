"""Two checkpoints on the same test pictures: the difference, its interval, and whether it may be chance."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import UserError
from pipeline.figures.style import MODE_NAMES
from pipeline.report.inputs import MODES, Run
from pipeline.report.tables import METRIC_NAMES, interval, markdown, signed
from pipeline.transfer.answers import Answers
from pipeline.transfer.metrics import METRICS
from pipeline.transfer.permutation import exchanged, parts
from pipeline.transfer.scored import Scored

READING = (
    "p: of 100,000 exchanges of the two models' answers, picture by picture, the share with a difference as "
    "large (VOC: in accuracy of the labels, as average precision cannot be exchanged); each model's runs are "
    "held fixed"
)


@dataclass(frozen=True)
class Comparison:
    """A run minus another on one dataset and mode, as printed."""

    dataset: str
    metric: str
    mode: str
    run: str
    other: str
    difference: str
    p: str


def compare(runs: list[Run]) -> list[Comparison]:
    """Each run after the first against the first, wherever both answered the same questions.

    :raises UserError: a file of answers cannot be read.
    """
    first, *others = runs
    return [
        found
        for other in others
        for ours in other.transfers
        for theirs in first.transfers
        for mode in MODES
        if (found := _compared(other, ours, first, theirs, mode))
    ]


def _compared(
    run: Run, ours: dict[str, Any], other: Run, theirs: dict[str, Any], mode: str
) -> Comparison | None:
    """None where dataset, metric, seeds or test pictures are not the same, or answers were not kept."""
    metrics = {(each["dataset"], _metric(each, mode)) for each in (ours, theirs)}
    if len(metrics) > 1:
        return None
    ((dataset, name),) = metrics
    a, b = (_answers(each, transfer, mode) for each, transfer in ((run, ours), (other, theirs)))
    if name not in METRICS or not a or [_question(each) for each in a] != [_question(each) for each in b]:
        return None
    metric, classes = METRICS[name], len(ours["classes"])
    pool = 1 + max(int(each.rows.max()) for each in a)
    gain = Scored(metric, a, classes, pool).above(Scored(metric, b, classes, pool))
    apart = np.zeros(pool)
    for mine, its in zip(a, b, strict=True):
        apart[mine.rows] += parts(metric, mine.labels, mine.answers) - parts(metric, its.labels, its.answers)
    told = f"{signed(gain.value)} {interval(vars(gain))}"
    p = _probability(exchanged(apart / len(a)))
    return Comparison(dataset, METRIC_NAMES.get(name, name), mode, run.name, other.name, told, p)


def _metric(transfer: dict[str, Any], mode: str) -> str | None:
    return next((row.get("metric") for row in transfer["results"] if row["mode"] == mode), None)


def _answers(run: Run, transfer: dict[str, Any], mode: str) -> list[Answers]:
    """Those of the result's seeds; the folder may hold more, of an earlier run of more."""
    count = sum(row["mode"] == mode for row in transfer["results"])
    folder = run.path / "transfer" / transfer["stem"]
    files = [folder / f"{mode}-{number}.npz" for number in range(count)]
    return [_read(file) for file in files] if all(file.exists() for file in files) else []


def _read(file: Path) -> Answers:
    try:
        return Answers.read(file)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise UserError(
            f"{file}: no answers as launch.transfer keeps them; remove it and run that again"
        ) from None


def _question(answers: Answers) -> tuple:
    """What two models must share for their answers to be paired."""
    return answers.identity["seed"], answers.identity["test"], answers.labels.tobytes()


def _probability(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def comparison_table(found: list[Comparison]) -> str:
    """As Markdown (GitHub's dialect), names escaped."""
    heads = ["dataset", "metric", "mode", "run", "minus run", "points [95 %]", "p"]
    out = [heads, [":--"] * 5 + ["--:"] * 2]
    for each in found:
        words = (each.dataset, each.metric, MODE_NAMES[each.mode], each.run, each.other)
        out.append([*map(markdown, words), each.difference, each.p])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in out) + f"\n\n{READING}\n"
