"""The loader's benchmark: every contestant over the same pictures, in turns, each round its own process.

Within a round all contestants run one after the other, in order and in the next round backwards, so that
a machine that grows slower or faster favours nobody. The pictures are read once before, so that all come
from the page cache. How one round is timed, ``timing.measure`` says.
"""

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.bench.contestants import BY_NAME, Contestant
from pipeline.bench.made import Made, make, picture_files, size_of
from pipeline.bench.process import ask, cores
from pipeline.bench.ratios import line
from pipeline.bench.timing import Setting, turns
from pipeline.config import Loading, Pictures, UserError
from pipeline.progress import Bar, say, track

REFERENCE = "files"
PICTURES = (".jpg", ".jpeg")
START_LIMIT = 600.0
"""Seconds that a contestant may take before its first batches; FFCV compiles for half a minute or more."""


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    :ivar names: of contestants; the reference is always among them.
    :ivar scaling: names of those that are measured with fewer threads too.
    :ivar threads: and cores, of every contestant.
    :ivar gpu_rates: pictures/s that GPUs consume.
    """

    pictures: Path
    work: Path
    names: tuple[str, ...]
    scaling: tuple[str, ...]
    rounds: int
    seconds: float
    warm_up: float
    batch: int
    size: int
    threads: int
    gpu_rates: tuple[float, ...]
    ffcv_python: Path | None = None


@dataclass(frozen=True)
class Entrant:
    contestant: Contestant
    threads: int


def run(plan: Plan) -> dict[str, Any]:
    """All rounds; the figures as JSON.

    :raises UserError: the pictures are not a folder of class folders of JPEGs.
    :raises RuntimeError: our own loader, with which all are compared, failed.
    """
    root = class_root(plan.pictures)
    count = check(root)
    entrants = entries(plan)
    made = prepare(entrants, root, plan)
    if made[REFERENCE].failed:
        raise UserError(f"{plan.pictures}: launch.prepare: {made[REFERENCE].failed}")
    failed = {one.contestant.name: made[one.contestant.name].failed for one in entrants}
    told = _rounds(plan, root, entrants, made, failed)
    reference = told[Entrant(BY_NAME[REFERENCE], plan.threads)]
    _same_pictures(told, count)
    lines = []
    for entrant in entrants:
        one = entrant.contestant
        about = {"name": one.name, "title": one.title, "kind": one.kind, "threads": entrant.threads}
        about |= {"kilobytes": made[one.name].bytes / count / 1000, "prepare_s": made[one.name].seconds}
        about |= {"failed": failed[one.name], "rounds": told[entrant]}
        if not about["failed"]:
            about |= line(told[entrant], reference, entrant.threads, list(plan.gpu_rates))
        lines.append(about)
    return {
        "setting": {
            "pictures": count, "kilobytes": size_of(root) / count / 1000, "reference": REFERENCE,
            "rounds": plan.rounds, "seconds": plan.seconds, "warm_up": plan.warm_up, "batch": plan.batch,
            "size": plan.size, "threads": plan.threads, "gpu_rates": list(plan.gpu_rates),
        },
        "contestants": lines,
    }  # fmt: skip


def class_root(pictures: Path) -> Path:
    """The folder of the class folders: ``pictures/train``, or ``pictures`` itself."""
    return pictures / "train" if (pictures / "train").is_dir() else pictures


def check(root: Path) -> int:
    """How many pictures there are; reads all, so that the page cache has them.

    :raises UserError: none, or files that some contestants skip and others read.
    """
    count = 0
    found = picture_files(root)
    for path in track(found, "read pictures", len(found), "pictures"):
        if path.suffix.lower() not in PICTURES:
            raise UserError(f"{path}: not a JPEG; loaders are compared on folders <class>/*.jpg alone")
        path.read_bytes()
        count += 1
    if not count:
        raise UserError(f"{root}: no pictures; --pictures needs a folder of <class>/*.jpg")
    return count


def entries(plan: Plan) -> list[Entrant]:
    """Everybody at full threads; those of ``scaling`` at 1, 2, 4, ... threads too."""
    fewer = [1 << power for power in range(plan.threads.bit_length()) if 1 << power < plan.threads]
    found = []
    for name in plan.names:
        one = BY_NAME[name]
        found.append(Entrant(one, 1 if one.one_thread else plan.threads))
        if name in plan.scaling and not one.one_thread:
            found += [Entrant(one, threads) for threads in fewer]
    return found


def prepare(entrants: list[Entrant], root: Path, plan: Plan) -> dict[str, Made]:
    """What each contestant reads, by name."""
    made = {}
    with Bar("prepare", len(plan.names), "contestants") as bar:
        for one in dict.fromkeys(entrant.contestant for entrant in entrants):
            made[one.name] = make(one, root, plan.work, plan.ffcv_python)
            if made[one.name].failed:
                say(f"{one.name} does not run: {made[one.name].failed}")
            bar.advance(note=one.name)
    return made


def _rounds(
    plan: Plan, root: Path, entrants: list[Entrant], made: dict[str, Made], failed: dict[str, str | None]
) -> dict[Entrant, list[dict[str, Any]]]:
    """What each round told, by entrant; who fails is noted in ``failed`` and sits out from then on."""
    told: dict[Entrant, list[dict[str, Any]]] = {entrant: [] for entrant in entrants}
    with Bar("measure loaders", plan.rounds * len(entrants), "rounds") as bar:
        for number in range(plan.rounds):
            for entrant in turns(entrants, number):
                name = entrant.contestant.name
                if not failed[name]:
                    one = one_round(*_setting(plan, root, entrant, made[name], number))
                    failed[name] = one.get("failed")
                    if failed[name] and name == REFERENCE:
                        raise RuntimeError(f"our own loader failed:\n{one['errors']}")
                    if failed[name]:
                        say(f"{name} does not run: {failed[name]}")
                    else:
                        told[entrant].append(one)
                bar.advance(note=name)
    return told


def one_round(setting: Setting, stream: str, python: str = sys.executable) -> dict[str, Any]:
    """What ``timing.measure`` tells of a contestant in a process of its own."""
    words = {"setting": asdict(setting), "stream": stream}
    limit = START_LIMIT + 3 * (setting.seconds + setting.warm_up)
    return ask("pipeline.bench.timing:one_round", words, cores(setting.threads), limit, python=python)


def _setting(
    plan: Plan, root: Path, entrant: Entrant, made: Made, number: int
) -> tuple[Setting, str] | tuple[Setting, str, str]:
    """The arguments of ``one_round``; each round has another seed, the same for all."""
    pictures = Pictures()
    setting = Setting(
        contestant=entrant.contestant.name,
        pictures=str(root),
        data=str(made.data),
        batch=plan.batch,
        size=plan.size,
        threads=entrant.threads,
        prefetch=Loading().prefetch,
        seed=number,
        seconds=plan.seconds,
        warm_up=plan.warm_up,
        mean=tuple(pictures.mean),
        std=tuple(pictures.std),
    )
    if entrant.contestant.kind == "ffcv":
        return setting, entrant.contestant.stream, str(plan.ffcv_python)
    return setting, entrant.contestant.stream


def _same_pictures(told: dict[Entrant, list[dict[str, Any]]], count: int) -> None:
    """:raises UserError: a contestant had other pictures, so that rates cannot be compared."""
    for entrant, rounds in told.items():
        for one in rounds:
            if one["set"] != count and entrant.contestant.kind != "limit":
                raise UserError(
                    f"{entrant.contestant.name}: read {one['set']} of {count} pictures; "
                    "remove those that launch.prepare lists in rejected.tsv"
                )


def known(flag: str, names: str) -> tuple[str, ...]:
    """The contestants' names in "a,b".

    :raises UserError: no such contestant; the message names the flag.
    """
    found = tuple(name for name in names.split(",") if name)
    for name in found:
        if name not in BY_NAME:
            raise UserError(f"{flag} {name}: no such contestant; there are {', '.join(BY_NAME)}")
    return found


def only(plan: Plan, names: tuple[str, ...]) -> Plan:
    """The plan with these contestants alone, and the reference."""
    return replace(plan, names=tuple(name for name in BY_NAME if name in {REFERENCE, *names}))
