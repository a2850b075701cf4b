"""Asked to stop (SIGTERM, SIGUSR1, Ctrl-C, no time left): a job saves at the next step and ends with code 75.

torchrun hands SIGTERM on to its ranks by itself; SIGUSR1 only with
``--signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1``, else it dies of it.
"""

import ctypes
import os
import signal
import time
from pathlib import Path
from types import FrameType

_UNDER_TORCHRUN = "TORCHELASTIC_RUN_ID"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
SCHEDULERS = (signal.SIGTERM, signal.SIGUSR1)
TERMINALS = (signal.SIGINT, signal.SIGHUP)
"""Ctrl-C, and one that is closed."""
PREEMPTED = 75
"""EX_TEMPFAIL: not failed, to be run again."""


class StopSignal:
    """Remembers that this process was asked to stop, and why. Ranks differ: they agree before they act."""

    def __init__(self) -> None:
        self.why = ""
        self._end = float("inf")  # Unix seconds

    def listen(self, terminal: bool = False) -> None:
        """From here on the signals are remembered; before, they end the process.

        :param terminal: also Ctrl-C, the first one, and a terminal that is closed, unless they are ignored
            (``nohup``, a script's ``&``).

        A rank whose torchrun is killed (by lack of memory, say) is asked too: else it would train on, and
        keep its run's folder from the job that goes on.
        """
        for number in SCHEDULERS:
            signal.signal(number, self._remember)
        for number in TERMINALS if terminal else ():
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._remember)
        if _UNDER_TORCHRUN in os.environ:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def end_after(self, minutes: float | None, margin: float) -> None:
        """Counts as asked ``margin`` minutes before the job is ``minutes`` old, or before SLURM ends it."""
        ends = [job_start() + 60 * minutes] if minutes is not None else []
        if slurm := os.environ.get("SLURM_JOB_END_TIME"):
            ends.append(float(slurm))
        self._end = min(ends, default=float("inf")) - 60 * margin

    @property
    def asked(self) -> bool:
        if not self.why and time.time() >= self._end:
            self.why = "time limit"
        return bool(self.why)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.why = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)  # a second one ends at once


def job_start() -> float:
    """When the command was given, Unix seconds: torchrun may start its ranks again, but no new job."""
    return process_start(os.getppid() if _UNDER_TORCHRUN in os.environ else os.getpid())


def process_start(pid: int) -> float:
    """Unix seconds, to a hundredth; see proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - age


STOP = StopSignal()
"""One for the whole process: a request that comes between two runs of the loop is not lost."""


class Preempted(Exception):  # noqa: N818 - not an error
    """The job was asked to stop and has saved everything."""
