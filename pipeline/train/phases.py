"""Where a rank is in its step: for the time of each phase, and for the watchdog."""

import time
from collections import Counter

import torch

from pipeline.train.ranks import Ranks


class Phases:
    """One phase lasts until the next is entered. On a GPU its work is timed by events in the device's queue,
    so that timing waits for nothing."""

    def __init__(self, ranks: Ranks):
        self._ranks = ranks
        self._gpu = ranks.device.type == "cuda"
        self._marks: list[tuple[str | None, float | torch.cuda.Event]] = []

    def enter(self, phase: str) -> None:
        self._ranks.at(phase)
        self._mark(phase)

    def leave(self) -> None:
        self._mark(None)

    def _mark(self, phase: str | None) -> None:
        if self._gpu:
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        else:
            now = time.perf_counter()
        self._marks.append((phase, now))

    def take(self) -> dict[str, float]:
        """Seconds spent in each phase since the last call."""
        seconds: Counter[str] = Counter()
        if self._gpu and self._marks:
            self._marks[-1][1].synchronize()
        for (phase, begun), (_, ended) in zip(self._marks, self._marks[1:], strict=False):
            if phase is not None:
                seconds[phase] += begun.elapsed_time(ended) / 1000 if self._gpu else ended - begun
        self._marks.clear()
        return dict(seconds)
