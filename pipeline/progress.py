"""Long work shows where it is: a bar with rate and time left on a terminal, plain lines elsewhere.

All of it goes to stderr; results alone go to stdout.
"""

import time
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TypeVar

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

PLAIN_EVERY = 15.0
"""Seconds between plain lines, where there is no terminal."""

Item = TypeVar("Item")


@cache
def terminal() -> Console:
    """One console for all bars, so that a bar within a bar (evaluation in training) draws below it."""
    return Console(stderr=True)


def say(line: str, console: Console | None = None) -> None:
    """One line on stderr, as it is: neither wrapped nor coloured; bars stay below it."""
    (console or terminal()).print(line, markup=False, highlight=False, soft_wrap=True)


class Bar:
    """Counts ``total`` units of work; a context, or closed by hand. Of several ranks one shows it.

    :param total: the whole amount; none if nobody knows.
    :param unit: "bytes" are shown as kB, MB; any other noun ("steps", "pictures") as a count.
    :param done: units finished before this process started; they don't count for the rate.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        unit: str,
        show: bool = True,
        done: int = 0,
        console: Console | None = None,
    ):
        self.title, self.total, self.unit, self.show = title, total, unit, show
        self.done = self._before = done
        self.note = ""
        self._start = self._last = time.monotonic()
        self._console = console or terminal()
        self._live: Progress | None = None
        if show and self._console.is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), _State(self))
            self._live = Progress(*columns, console=self._console, transient=True)
            self._task = self._live.add_task(title, total=total, completed=done)
            self._live.start()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def advance(self, units: int = 1, note: str | None = None) -> None:
        """:param note: words shown beside the bar until others come."""
        self.done += units
        self.note = self.note if note is None else note
        now = time.monotonic()
        if self._live:
            self._live.update(self._task, completed=self.done)
        elif self.show and now - self._last > PLAIN_EVERY:
            self._last = now
            say(f"{self.title}: {self.state()}", self._console)

    def close(self) -> None:
        """The last line stays: how much was done, how fast."""
        if self._live:
            self._live.stop()
        if self.show:
            self.show = False
            seconds = max(time.monotonic() - self._start, 1e-9)
            amount = _amount(self.done, self.unit)
            fresh = f"in {clock(seconds)} ({self._pace()})"
            told = "were done already" if 0 < self.done == self._before else fresh
            say(f"{self.title}: {amount} {told}", self._console)

    def state(self) -> str:
        """'12 of 94 steps, 1.5 steps/s, 0:55 left, loss 1.8'"""
        if self.total is None:
            words = [_amount(self.done, self.unit), self._pace()]
        else:
            rate = self._rate()
            left = [clock((self.total - self.done) / rate) + " left"] if rate else []
            of = f"{_amount(self.done, self.unit, name=False)} of {_amount(self.total, self.unit)}"
            words = [of, self._pace(), *left]
        return ", ".join(words + [self.note] * bool(self.note))

    def _rate(self) -> float:
        return (self.done - self._before) / max(time.monotonic() - self._start, 1e-9)

    def _pace(self) -> str:
        return f"{_amount(self._rate(), self.unit)}/s"


class _State(ProgressColumn):
    def __init__(self, bar: Bar):
        self.bar = bar
        super().__init__()

    def render(self, task: Task) -> Text:
        return Text(self.bar.state())


def track(items: Iterable[Item], title: str, total: int, unit: str, show: bool = True) -> Iterator[Item]:
    """The items again, counted by a bar."""
    with Bar(title, total, unit, show) as bar:
        for item in items:
            yield item
            bar.advance()


def clock(seconds: float) -> str:
    """75 as '1:15', 3675 as '1:01:15', 2.34 as '2.3 s'."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _amount(value: float, unit: str, name: bool = True) -> str:
    if unit == "bytes":
        return decimal(int(value))
    number = f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2f}"
    return f"{number} {unit}" if name else number
