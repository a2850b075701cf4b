"""A rank that stops moving ends the job, instead of letting all ranks wait for it for ever.

Every rank tells a shared store where it is: that it lives (a thread of its own beats), which step and phase
it is in and since when. A rank that has not moved for too long looks at the others' beats, says which rank
is stuck and where, and ends its process; torchrun then ends the rest, and with ``--max-restarts`` starts all
again from the last checkpoint. A rank may say that its phase takes what it takes, as where the first one fits
a classifier: then all wait for it as long as it lives.
"""

import json
import math
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import NoReturn

import torch.distributed as dist

HUNG = 70
"""EX_SOFTWARE: the exit code of a rank that gave up waiting."""


@dataclass
class Beat:
    """What a rank tells about itself."""

    node: str
    pid: int
    step: int = 0
    phase: str = "start"
    still: float = 0.0
    """Seconds in this phase when it was told."""
    beats: int = 0
    """Rises as long as the process lives, moving or not."""
    long: bool = False
    """This phase may last as long as it likes."""


class Watchdog:
    """:param timeout: seconds in one phase after which a rank counts as stuck.
    :param store: reaches all ranks; this object's own connection.
    """

    def __init__(self, store: dist.Store, rank: int, world: int, timeout: float):
        self._store, self._rank, self._world, self.timeout = store, rank, world, timeout
        self._mine = Beat(os.uname().nodename, os.getpid())
        self._since = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def at(self, phase: str, step: int | None = None, long: bool = False) -> None:
        """This rank moves: it is in this phase now, of this step.

        :param long: the phase may last as long as it likes.
        """
        self._since = time.monotonic()
        self._mine.phase, self._mine.long = phase, long
        if step is not None:
            self._mine.step = step

    def close(self) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        pause = min(2.0, self.timeout / 10)
        while not self._end.wait(pause):
            try:
                self._tell()
                if self._mine.still > self.timeout:
                    self._give_up(pause)
            except dist.DistError as error:
                if self._mine.still > self.timeout:
                    end_process(f"no rank's place is known: the store does not answer ({error})")

    def _tell(self) -> None:
        self._mine.still = time.monotonic() - self._since
        self._mine.beats += 1
        self._store.set(f"beat/{self._rank}", json.dumps(asdict(self._mine)))

    def _give_up(self, pause: float) -> None:
        before = self._beats()
        # A living rank beats meanwhile. Who waits for a long phase looks again and again, and is slower to
        # call a rank dead.
        patience = min(30.0, self.timeout) if any(beat.long for beat in before.values()) else 2 * pause
        for _ in range(math.ceil(patience / pause)):
            if self._end.wait(pause):
                return
            self._tell()
        if self._mine.still <= self.timeout:
            return  # it moved after all
        now = self._beats()
        stuck, message = blame(before, now, self._world, self.timeout)
        if not stuck:
            return
        well = set(range(self._world)) - set(stuck)
        if self._rank != min(well or now):
            time.sleep(2 * pause)  # one rank tells it for all
        end_process(message)

    def _beats(self) -> dict[int, Beat]:
        keys = {rank: f"beat/{rank}" for rank in range(self._world)}
        known = {rank: key for rank, key in keys.items() if self._store.check([key])}
        return {rank: Beat(**json.loads(self._store.get(key))) for rank, key in known.items()}


def blame(before: dict[int, Beat], now: dict[int, Beat], world: int, timeout: float) -> tuple[list[int], str]:
    """Which ranks are stuck, and where: those that don't beat, else those that are furthest behind. None is
    while all live and one is in a phase that may be long.

    :param before, now: all ranks' beats, some beats apart; of a rank that never told anything there is none.
    """
    dead = [rank for rank in now if rank in before and now[rank].beats == before[rank].beats]
    silent = [rank for rank in range(world) if rank not in now]
    if silent:
        stuck, how = silent, "nothing was heard of it since it joined"
    elif dead:
        stuck, how = dead, "its process stands still"
    elif any(beat.long for beat in now.values()):
        stuck, how = [], ""
    else:
        last = min(beat.step for beat in now.values())
        behind = [rank for rank in now if now[rank].step == last]
        # Where all are in one step, those that wait in an exchange wait for the one that does not.
        alone = [rank for rank in behind if now[rank].phase not in _EXCHANGES]
        stuck, how = (alone or behind), "its process lives"
    told = "; ".join(f"rank {rank}{_place(now.get(rank))}; {how}" for rank in stuck)
    return stuck, f"no progress for {timeout:g} s (hang_timeout); stuck: {told}"


def _place(beat: Beat | None) -> str:
    if beat is None:
        return ""
    return f" ({beat.node}, process {beat.pid}), last seen in step {beat.step}, {beat.phase}"


_EXCHANGES = ("communication", "agreeing", "backward", "optimizer")
"""Phases in which ranks wait for each other."""


def end_process(message: str) -> NoReturn:
    """Says why, and ends this process at once, whatever its threads wait for."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(HUNG)
