"""Asked to stop (SIGTERM, SIGUSR1): the job saves at the next step boundary and ends with code 75.

torchrun hands SIGTERM on to its ranks by itself, SIGUSR1 only with ``--signals-to-handle``.
"""

import signal
from types import FrameType

PREEMPTED = 75
"""EX_TEMPFAIL: not failed, to be run again."""


class StopSignal:
    """Remembers that this process was asked to stop. ``asked`` differs between ranks: agree before acting."""

    def __init__(self) -> None:
        self.asked = False

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


STOP = StopSignal()
"""One for the whole process: a request that comes between two runs of the loop is not lost."""


class Preempted(Exception):  # noqa: N818 - not an error
    """The job was asked to stop and has saved everything."""
