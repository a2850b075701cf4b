"""Where the ranks of a job meet: a store that holds nothing of an attempt before.

torchrun keeps one store through all its restarts (torch 2.15, dynamic_rendezvous.py), and torch puts the
ranks' addresses into it under the same names each time: after a restart a fast rank finds where another one
listened before it died, and is refused there, or waits for ever. Neither the number of restarts nor anything
else in the environment tells attempts apart on all nodes, so the first rank names each one.
"""

import secrets
import time

import torch.distributed as dist


def meet() -> tuple[dist.Store, int, int]:
    """A store for this attempt alone, this rank, and the number of ranks; waits until all are there."""
    store, rank, world = next(dist.rendezvous("env://"))
    mine = secrets.token_hex(8)
    if rank == 0:
        _welcome(store, world, mine)
        return dist.PrefixStore(mine, store), rank, world
    store.set(f"hello/{rank}", mine)
    attempt = store.get(f"answer/{mine}").decode()
    store.set(f"seen/{rank}/{attempt}", "")
    return dist.PrefixStore(attempt, store), rank, world


def _welcome(store: dist.Store, world: int, attempt: str) -> None:
    """Tells every rank the attempt's name. A greeting may be of a dead process: only a living one answers."""
    greeted: dict[int, str] = {}
    missing = set(range(1, world))
    while missing:
        for rank in sorted(missing):
            if store.check([f"hello/{rank}"]):
                hello = store.get(f"hello/{rank}").decode()
                if greeted.get(rank) != hello:
                    store.set(f"answer/{hello}", attempt)
                    greeted[rank] = hello
            if store.check([f"seen/{rank}/{attempt}"]):
                missing.discard(rank)
        time.sleep(0.01)
