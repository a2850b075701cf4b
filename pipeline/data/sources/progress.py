"""A bar with rate and time left on a terminal; plain lines where there is none. All of it on stderr."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

LINE_EVERY = 10.0  # seconds between plain lines of one piece of work


def say(text: str, console: Console | None = None) -> None:
    """One line on stderr, as it is: neither wrapped nor coloured."""
    (console or Console(stderr=True)).print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(
    what: str, total: int | None, unit: str, console: Console | None = None
) -> Iterator[Callable[[int], None]]:
    """Shows how far a piece of work is; yields a function to which the newly done amount is given.

    :param total: the whole amount; none if nobody knows.
    :param unit: 'bytes' are shown as kB, MB; any other noun as a count.
    """
    console = console or Console(stderr=True)
    start = time.monotonic()
    done = 0
    if console.is_terminal:
        name = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"))
        columns = (name, BarColumn(16), _Amount(unit), TimeRemainingColumn(compact=True))
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda amount: bar.advance(task, amount)
        return

    last = start

    def advance(amount: int) -> None:
        nonlocal done, last
        done += amount
        now = time.monotonic()
        if now - last >= LINE_EVERY:
            last = now
            say(f"{what}: {_part(done, total, unit)} ({_rate(done / (now - start), unit)})", console)

    yield advance
    seconds = max(time.monotonic() - start, 1e-9)
    say(f"{what}: {_amount(done, unit)} in {seconds:.1f} s ({_rate(done / seconds, unit)})", console)


class _Amount(ProgressColumn):
    """'20,000 of 60,000 pictures, 33,850/s', '23.1 MB of 139.0 MB, 28.0 MB/s'"""

    def __init__(self, unit: str):
        self.unit = unit
        super().__init__(table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        speed = f", {_rate(task.speed, self.unit)}" if task.speed else ""
        return Text(_part(task.completed, task.total, self.unit) + speed)


def _part(done: float, total: float | None, unit: str) -> str:
    if total is None:
        return _amount(done, unit)
    if unit == "bytes":
        return f"{decimal(int(done))} of {decimal(int(total))}"
    return f"{done:,.0f} of {total:,.0f} {unit}"


def _amount(value: float, unit: str) -> str:
    return decimal(int(value)) if unit == "bytes" else f"{value:,.0f} {unit}"


def _rate(value: float, unit: str) -> str:
    return f"{decimal(int(value))}/s" if unit == "bytes" else f"{value:,.0f}/s"
