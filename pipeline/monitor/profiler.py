"""Profiler traces of single steps: those that the config names, and on demand in a running job.

``touch runs/NAME/PROFILE`` traces the next steps of the first rank; the file is then removed. A trace,
``profile/steps_A-B.json.gz``, opens in ui.perfetto.dev or chrome://tracing; ``steps_A-B.txt`` beside it
lists the operators that cost most.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from pipeline.files import partial_name, write_whole
from pipeline.progress import say

ASKED = "PROFILE"
"""The file in a run's folder that asks for a trace."""
STEPS = 5
"""Traced when asked."""
LOOK_EVERY = 1.0
"""Seconds between looks for the file."""
ROWS, NAME = 25, 60
"""Operators in the table, and characters of their names."""


class Profiler:
    """A context, called between steps; nearly free while nothing is traced. A failure is a line, no more.

    :param folder: of the run. :param steps: first and last step to trace; none = only when asked.
    :param start: steps done so far. :param on: false on ranks other than the first.
    """

    def __init__(self, folder: Path, steps: list[int] | None, start: int, *, on: bool):
        self._folder, self._on = folder, on
        self._wanted = range(steps[0], steps[1] + 1) if steps else range(0)
        self._trace: _Trace | None = None
        self._looked = time.monotonic()
        self.step(start)

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def step(self, done: int) -> None:
        """Between two steps, ``done`` of them finished."""
        if not self._on:
            return
        try:
            self._between(done)
        except Exception as error:  # another tool holds the GPU's counters, the disk is full
            self._give_up(error)

    def close(self) -> None:
        """Keeps what was traced of whole steps."""
        if self._trace is None:
            return
        try:
            self._trace.keep(self._folder / "profile")
        except Exception as error:
            self._give_up(error)
        self._trace = None

    def _between(self, done: int) -> None:
        if self._trace is not None:
            self._trace.done = done
            if done >= self._trace.last:
                self.close()
        elif done + 1 in self._wanted:
            self._trace = _Trace(done + 1, self._wanted[-1])
        elif self._asked():
            self._trace = _Trace(done + 1, done + STEPS)
        if self._trace is not None:
            self._trace.begin(done + 1)

    def _asked(self) -> bool:
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return False
        self._looked = now
        file = self._folder / ASKED
        if not file.exists():
            return False
        file.unlink()
        return True

    def _give_up(self, error: Exception) -> None:
        self._on = False
        if self._trace is not None:
            self._trace.drop()
        say(f"no profiler from here on: {' '.join(str(error).split()) or type(error).__name__}")


class _Trace:
    """Of steps ``first`` to ``last``, begun here; ``done`` is how far it got."""

    def __init__(self, first: int, last: int):
        self.first, self.last, self.done = first, last, first - 1
        self._gpu = torch.cuda.is_available()
        activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * self._gpu]
        self._profile = profile(activities=activities)
        self._profile.start()
        self._step: record_function | None = None

    def begin(self, step: int) -> None:
        """The steps stand out in the trace by their numbers."""
        self._end_step()
        self._step = record_function(f"step {step}")
        self._step.__enter__()

    def keep(self, folder: Path) -> None:
        """Ends and writes it, if it holds a whole step."""
        self._end_step()
        if self._gpu:
            torch.cuda.synchronize()  # or the last step's kernels are missing
        self._profile.stop()
        if self.done < self.first:
            return
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"steps_{self.first}-{self.done}.json.gz"
        partial = partial_name(file).with_suffix(".gz")  # by which torch knows to compress
        self._profile.export_chrome_trace(str(partial))
        os.replace(partial, file)
        order = f"self_{'device' if self._gpu else 'cpu'}_time_total"
        table = self._profile.key_averages().table(order, ROWS, max_name_column_width=NAME)
        write_whole(folder / f"steps_{self.first}-{self.done}.txt", table.encode())
        say(f"profile of steps {self.first} to {self.done}: {file}")

    def drop(self) -> None:
        with suppress(Exception):  # it may not have been running
            self._end_step()
            self._profile.stop()

    def _end_step(self) -> None:
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None
