"""What the members' folders say: errors over the epochs, on what hardware, and how long it took."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.config import StudyConfig, TrainConfig
from pipeline.monitor.codebase import CODE, read_code
from pipeline.monitor.history import History, busy, read_history
from pipeline.progress import clock
from pipeline.study.members import Key
from pipeline.study.seeds import Interval, over_seeds

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Trained:
    """All runs of a study, finished."""

    study: StudyConfig
    configs: dict[Key, TrainConfig]

    @cached_property
    def runs(self) -> dict[Key, History]:
        """Those that train."""
        return {
            key: read_history(each.folder)
            for key, each in self.configs.items()
            if (each.folder / METRICS).exists()
        }

    def of(self, member: str) -> list[History]:
        """Its runs, in the order of the seeds."""
        return [self.runs[member, seed] for seed in self.study.seeds]

    def errors(self, member: str, split: str) -> np.ndarray:
        """(S,) percent at the end: of "train" over the last epoch's steps, of "val" after the last step."""
        return np.array([last_error(run, split) for run in self.of(member)])

    def difference(self, more: str, less: str, split: str) -> Interval:
        """Of two members' errors, in points, paired by seed."""
        return over_seeds(self.errors(more, split) - self.errors(less, split))

    def seconds(self) -> float:
        """That all runs' steps took, evaluations and starts excepted."""
        return sum(busy(run) for run in self.runs.values())

    def told(self) -> list[str]:
        """Size, hardware and time, in sentences for the page."""
        if not self.runs:
            return []
        run = next(iter(self.runs.values()))
        data, batch = run.config["data"], run.config["train"]["batch"]
        last = max(run.rows, key=lambda row: row["step"])
        steps, epochs = last["step"], last["epoch"]
        size, pictures = data["pictures"]["size"], round(steps * batch / epochs)
        rates = [np.median(each.column("train", "images_per_s")[1]) for each in self.runs.values()]
        seeds = ", ".join(map(str, self.study.seeds))
        nets = f"{len(self.runs) // len(self.study.seeds)} nets × {len(self.study.seeds)} seeds ({seeds})"
        width = run.config["model"]["width"]
        shown = f"{size}×{size} windows of {Path(data['index']).name}'s {pictures:,} training pictures"
        time = f"Steps took {clock(self.seconds())} in all"
        return [
            f"{nets}: {epochs:.3g} epochs of {shown}, batch {batch}, {steps:,} steps a run, "
            f"{width:g} × the paper's channels.",
            f"Hardware: {self._noted('hardware')}; torch {self._noted('torch')}. "
            f"{time}, at {min(rates):,.0f} to {max(rates):,.0f} pictures/s a run (medians).",
        ]

    def _noted(self, key: str) -> str:
        """What the runs' code.yaml say, which their jobs wrote: each once, of all jobs of all runs."""
        entries = [entry for run in self.runs.values() for entry in read_code(run.path / CODE) or [{}]]
        return each_once(entry.get(key) for entry in entries)


def each_once(noted: Iterable[str | None]) -> str:
    """In the order of their coming; "not kept" for runs of before it was noted."""
    return ", ".join(dict.fromkeys(each or "not kept" for each in noted))


def last_error(run: History, split: str) -> float:
    epochs, top1 = run.column(split, "top1")
    kept = top1[epochs > epochs[-1] - 1] if split == "train" else top1[-1:]
    return float(100 * (1 - kept.mean()))


def error_curve(runs: Iterable[History], split: str, bins: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (B,) and errors (S, B) in percent; steps of training are put together in equal parts."""
    found = []
    for run in runs:
        epochs, top1 = run.column(split, "top1")
        _, last = np.unique(epochs, return_index=True)
        epochs, top1 = epochs[last], top1[last]
        parts = np.array_split(np.arange(len(epochs)), min(bins, len(epochs)))
        found.append([(epochs[part].mean(), 100 * (1 - top1[part].mean())) for part in parts])
    array = np.array(found)  # (S, B, 2)
    return array[0, :, 0], array[:, :, 1]
