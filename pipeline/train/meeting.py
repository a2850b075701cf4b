"""Where the ranks of a job meet: a store that holds nothing of an attempt before.

torchrun keeps one store through all its restarts (torch 2.15, dynamic_rendezvous.py), and torch puts the
ranks' addresses into it under the same names each time: after a restart a fast rank finds where another one
listened before it died, and is refused there, or waits for ever. Neither the number of restarts nor anything
else in the environment tells attempts apart on all nodes, so the first rank names each one.

Who waits here can be stopped: a rank that waits within the store hears no signal. When another one had died
before it came, torchrun waited 30 s for it, or its whole --shutdown-timeout when it was to stop itself.
"""

import secrets
import time

import torch.distributed as dist

from pipeline.preempt import STOP, Preempted

GO, STOPPED = "go", "stopped"


def meet() -> tuple[dist.Store, int, int]:
    """A store for this attempt alone, this rank, and the number of ranks; waits until all are there.

    :raises Preempted: a rank was asked to stop before all were there; then on all that wait.
    """
    store, rank, world = next(dist.rendezvous("env://"))
    mine = secrets.token_hex(8)
    if rank == 0:
        attempt = mine
        _welcome(store, world, attempt)
    else:
        store.set(f"hello/{rank}", mine)
        attempt = _answer(store, mine)
        store.set(f"seen/{rank}/{attempt}", "")
        while not store.check([f"verdict/{attempt}"]):
            _pause(store, attempt)
    if store.get(f"verdict/{attempt}").decode() == STOPPED:
        raise _preempted()
    return dist.PrefixStore(attempt, store), rank, world


def _answer(store: dist.Store, mine: str) -> str:
    """The attempt's name. Who does not know it yet is not waited for by anyone that goes on."""
    while not store.check([f"answer/{mine}"]):
        if STOP.asked:
            raise _preempted()
        time.sleep(0.01)
    return store.get(f"answer/{mine}").decode()


def _welcome(store: dist.Store, world: int, attempt: str) -> None:
    """Tells every rank the attempt's name. A greeting may be of a dead process: only a living one answers."""
    greeted: dict[int, str] = {}
    missing = set(range(1, world))
    while missing and not store.check([f"verdict/{attempt}"]):
        for rank in sorted(missing):
            if store.check([f"hello/{rank}"]):
                hello = store.get(f"hello/{rank}").decode()
                if greeted.get(rank) != hello:
                    store.set(f"answer/{hello}", attempt)
                    greeted[rank] = hello
            if store.check([f"seen/{rank}/{attempt}"]):
                missing.discard(rank)
        _pause(store, attempt)
    _decide(store, attempt, GO)


def _pause(store: dist.Store, attempt: str) -> None:
    if STOP.asked:
        _decide(store, attempt, STOPPED)
    time.sleep(0.01)


def _decide(store: dist.Store, attempt: str, verdict: str) -> None:
    """The first verdict stands, for all ranks: nobody goes on to wait for one that has left."""
    store.compare_set(f"verdict/{attempt}", "", verdict)


def _preempted() -> Preempted:
    return Preempted(
        f"stopped before all ranks were there ({STOP.why or 'another rank'}); the same command goes on"
    )
