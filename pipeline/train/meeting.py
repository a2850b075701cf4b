"""Where the ranks of a job meet: a store that holds nothing of an attempt before.

torchrun keeps one store through all its restarts (torch 2.15, dynamic_rendezvous.py), and torch puts the
ranks' addresses into it under the same names each time: after a restart a fast rank finds where another one
listened before it died, and is refused there, or waits for ever. Neither the number of restarts nor anything
else in the environment tells attempts apart on all nodes, so the first rank names each one.

Who waits here can be stopped: a rank that waits within the store hears no signal. When another one had died
before it came, torchrun waited 30 s for it, or its whole --shutdown-timeout when it was to stop itself. And
nobody waits for ever: a rank may stand still before it comes, and the watchdog begins after the meeting.
"""

import secrets
import time

import torch.distributed as dist

from pipeline.preempt import STOP, Preempted
from pipeline.train.watchdog import end_process

GO, STOPPED = "go", "stopped"


def meet(timeout: float) -> tuple[dist.Store, int, int]:
    """A store for this attempt alone, this rank, and the number of ranks; waits until all are there.

    :param timeout: seconds after which this process ends, saying which rank has not come.
    :raises Preempted: a rank was asked to stop before all were there; then on all that wait.
    """
    store, rank, world = next(dist.rendezvous("env://"))
    attempt = _Meeting(store, rank, world, timeout).attempt()
    return dist.PrefixStore(attempt, store), rank, world


class _Meeting:
    def __init__(self, store: dist.Store, rank: int, world: int, timeout: float):
        self._store, self._rank, self._world = store, rank, world
        self._timeout, self._end = timeout, time.monotonic() + timeout
        self._mine = secrets.token_hex(8)

    def attempt(self) -> str:
        """The attempt's name, once all ranks know it."""
        if self._rank == 0:
            attempt = self._mine
            self._welcome()
        else:
            attempt = self._answer()
            while not self._store.check([f"verdict/{attempt}"]):
                self._pause([0], attempt)
        if self._store.get(f"verdict/{attempt}").decode() == STOPPED:
            raise _preempted()
        return attempt

    def _answer(self) -> str:
        """Greets, and waits for the first rank's answer; who has not got it yet is not waited for."""
        self._store.set(f"hello/{self._rank}", self._mine)
        while not self._store.check([f"answer/{self._mine}"]):
            self._pause([0])
        attempt = self._store.get(f"answer/{self._mine}").decode()
        self._store.set(f"seen/{self._rank}/{attempt}", "")
        return attempt

    def _welcome(self) -> None:
        """Tells all the attempt's name. A greeting may be of a dead process: only a living one answers."""
        store, attempt = self._store, self._mine
        greeted: dict[int, str] = {}
        missing = set(range(1, self._world))
        while missing and not store.check([f"verdict/{attempt}"]):
            for rank in sorted(missing):
                if store.check([f"hello/{rank}"]):
                    hello = store.get(f"hello/{rank}").decode()
                    if greeted.get(rank) != hello:
                        store.set(f"answer/{hello}", attempt)
                        greeted[rank] = hello
                if store.check([f"seen/{rank}/{attempt}"]):
                    missing.discard(rank)
            self._pause(sorted(missing), attempt)
        self._decide(attempt, GO)

    def _pause(self, missing: list[int], attempt: str | None = None) -> None:
        if STOP.asked:
            if attempt is None:
                raise _preempted()
            self._decide(attempt, STOPPED)
        if time.monotonic() > self._end:
            told = ", ".join(map(str, missing))
            end_process(f"rank {told} did not come within {self._timeout:g} s (hang_timeout)")
        time.sleep(0.01)

    def _decide(self, attempt: str, verdict: str) -> None:
        """The first verdict stands, for all ranks: nobody goes on to wait for one that has left."""
        self._store.compare_set(f"verdict/{attempt}", "", verdict)


def _preempted() -> Preempted:
    return Preempted(
        f"stopped before all ranks were there ({STOP.why or 'another rank'}); the same command goes on"
    )
