"""Several trainings in one table: a line for each setting, with the mean of its seeds."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.config import TrainConfig
from pipeline.report.inputs import Run
from pipeline.study.seeds import PERCENT, Interval, over_seeds
from pipeline.train.resume import FREE, completed

ALIKE = ("seed", *(key for key in FREE if key not in ("engine", "data.index", "data.val", "data.test")))
"""Keys and sections that make no other setting: they say how and where a run computes, not what."""


@dataclass(frozen=True)
class Setting:
    """Trainings that differ in nothing but their seeds.

    :ivar values: of the keys in which settings differ. :ivar split: on which they were evaluated last.
    :ivar top1: percent, over the seeds that have ended; runs of one seed count once, with their mean: they
        say nothing of other seeds. :ivar average: the same of the moving average.
    :ivar ended: runs that have. :ivar unfinished: names of those that have not.
    """

    values: dict[str, Any]
    split: str | None
    top1: Interval | None
    average: Interval | None
    ended: int
    unfinished: list[str]


def settings(runs: list[Run]) -> list[Setting]:
    """In the order of their values; runs without a training's config are left out."""
    told = [(run, dict(_flat(completed(TrainConfig, run.config)))) for run in runs if run.config]
    keys = dict.fromkeys(key for _, config in told for key in config)
    differing = [key for key in keys if len({repr(config.get(key)) for _, config in told}) > 1]
    groups: dict[str, list[Run]] = {}
    for run, config in told:
        groups.setdefault(repr([config.get(key) for key in differing]), []).append(run)
    known = {run.path: config for run, config in told}
    found = [
        _setting(group, {key: known[group[0].path].get(key) for key in differing})
        for group in groups.values()
    ]
    return sorted(found, key=lambda setting: [_rank(value) for value in setting.values.values()])


def print_trainings(found: list[Setting], console: Console | None = None) -> None:
    """The table on the terminal."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, header_style="")
    keys, averaged = list(found[0].values), any(each.average for each in found)
    for head in [*keys, "split", "top-1, %", *(["average's"] if averaged else []), "seeds"]:
        shown.add_column(head, justify="left" if head == "split" else "right", overflow="fold")
    for each in found:
        figures = [each.top1, each.average] if averaged else [each.top1]
        waiting = [f"+ {len(each.unfinished)} not ended"] if each.unfinished else []
        seeds = [str(each.top1.seeds)] if each.top1 else []
        if each.top1 and each.ended > each.top1.seeds:
            seeds.append(f"in {each.ended} runs")
        shown.add_row(
            *(Text(_word(value)) for value in each.values.values()),
            each.split or "–",
            *(figure.told("{:.2f}") if figure else "–" for figure in figures),
            " ".join(seeds + waiting),
        )
    (console or Console()).print(shown, Text("\nmean over seeds [95 % interval, Student's]", "dim"))


def _setting(runs: list[Run], values: dict[str, Any]) -> Setting:
    ended = [run for run in runs if _ended(run)]
    split = next((name for name in ("test", "val") if ended and all(run.last(name) for run in ended)), None)

    def figure(key: str) -> Interval | None:
        by_seed: dict[Any, list[float]] = {}
        for run in ended if split else []:
            found = run.last(split, key=key)
            if found is None:
                return None
            by_seed.setdefault(run.config.get("seed"), []).append(100 * found[1])
        return over_seeds([fmean(each) for each in by_seed.values()], PERCENT) if by_seed else None

    unfinished = [run.name for run in runs if not _ended(run)]
    return Setting(values, split, figure("top1"), figure("ema_top1"), len(ended), unfinished)


def _ended(run: Run) -> bool:
    """Its last step is done, and what was to be evaluated after it is."""
    data, train = run.config.get("data", {}), run.config.get("train", {})
    if data.get("test"):
        return run.last("test") is not None
    of = {split: [row for row in run.rows if row.get("split") == split] for split in ("train", "val")}
    last = {key: max((row.get(key, 0) for row in of["train"]), default=0) for key in ("epoch", "step")}
    if data.get("val") and max((row.get("step", 0) for row in of["val"]), default=0) < last["step"]:
        return False
    ends = (train.get("epochs"), last["epoch"]), (train.get("steps"), last["step"])
    # What comes first; steps that make up an epoch can add up to a rounding less.
    return any(end is not None and reached >= end - 1e-6 for end, reached in ends)


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, without what makes no other setting."""
    for key, value in tree.items():
        name = prefix + str(key)
        if name in ALIKE:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _rank(value: Any) -> tuple[int, float, str]:
    number = isinstance(value, (int, float))
    return (0, float(value), "") if number else (1, 0.0, str(value))


def _word(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
