"""Long work shows where it is: a bar with rate and time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_EVERY = 15.0
"""Seconds between plain lines, where there is no terminal."""

Item = TypeVar("Item")


class Bar:
    """Counts ``total`` units of work. Silent unless ``show``: of several ranks one speaks.

    :param unit: what the rate counts: "steps", "pictures".
    :param done: units finished before this process started.
    """

    def __init__(self, title: str, total: int, unit: str, show: bool, done: int = 0):
        self.title, self.total, self.unit, self.show = title, total, unit, show
        self.done = self._start_done = done
        self._start = self._last = time.monotonic()
        self._terminal = show and sys.stderr.isatty()
        if self._terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._task = self._progress.add_task(title, total=total, completed=done, note="")
            self._progress.start()

    def advance(self, units: int = 1, note: str = "") -> None:
        self.done += units
        if self._terminal:
            self._progress.update(self._task, completed=self.done, note=f"{self._pace()} {note}")
        elif self.show and (time.monotonic() - self._last > PLAIN_EVERY or self.done >= self.total):
            self._last = time.monotonic()
            self.say(f"{self.title}: {self.done}/{self.total} {self.unit}, {self._pace()} {note}".rstrip())

    def say(self, line: str) -> None:
        """A line of its own that does not disturb the bar."""
        if self._terminal:
            self._progress.console.print(line, highlight=False)
        elif self.show:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._terminal:
            self._progress.stop()

    def _pace(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._start_done) / seconds
        left = (self.total - self.done) / rate if rate else 0.0
        return f"{rate:.3g} {self.unit}/s, {_clock(left)} left"


def track(items: Iterable[Item], title: str, total: int, unit: str, show: bool = True) -> Iterator[Item]:
    """The items again, counted by a bar."""
    bar = Bar(title, total, unit, show)
    try:
        for item in items:
            yield item
            bar.advance()
    finally:
        bar.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
