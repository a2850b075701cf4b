"""The processes of a job: who am I, how many are we, on which device do I compute."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile

import torch
import torch.distributed as dist

from pipeline.config import UserError
from pipeline.cores import cores_per_rank
from pipeline.memory import keep_memory
from pipeline.network import address_towards, interface_with
from pipeline.preempt import STOP, Preempted
from pipeline.train.meeting import meet
from pipeline.train.watchdog import Watchdog

A_DAY = 86400.0
"""Seconds. What all ranks wait for while the first one alone computes (a fit, a look, intervals) may take as
long as that lives; who hangs ends sooner."""


@dataclass(frozen=True)
class Ranks:
    """This process among the job's.

    :ivar rank: 0..world-1, unique over all nodes. :ivar local_rank: on this node; its GPU's number.
    """

    rank: int
    world: int
    local_rank: int
    device: torch.device
    watchdog: Watchdog | None = None

    def at(self, phase: str, step: int | None = None, long: bool = False) -> None:
        """Tells the watchdog that this rank moves, and where it is; a ``long`` phase takes what it takes."""
        if self.watchdog is not None:
            self.watchdog.at(phase, step, long)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; every rank gets the same answer."""
        shared = torch.tensor([int(flag)])
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return bool(shared.item())

    def equal(self, number: int) -> bool:
        """Whether all ranks hold the same number."""
        extremes = torch.tensor([number, -number])
        dist.all_reduce(extremes, dist.ReduceOp.MAX)
        return bool(extremes.sum() == 0)

    def stop_if_asked(self, where: str) -> None:
        """:raises Preempted: on all ranks, when any of them was asked to stop."""
        if self.any(STOP.asked):
            raise Preempted(f"stopped {where} ({STOP.why or 'another rank'}); the same command goes on")

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sums a tensor over the ranks, in place."""
        dist.all_reduce(values)
        return values

    def gather(self, mine: object) -> list:
        """What each rank holds, in the order of ranks, on every rank; small things that can be pickled."""
        found: list = [None] * self.world
        dist.all_gather_object(found, mine)
        return found

    def same(self, buffers: Iterator[torch.Tensor]) -> None:
        """Gives all ranks the first rank's buffers, in place."""
        for buffer in buffers:
            dist.broadcast(buffer, 0)

    def barrier(self) -> None:
        self.any(False)


@contextmanager
def join(device: str = "auto", hang_timeout: float | None = None, longest: float = 1800.0) -> Iterator[Ranks]:
    """Joins the job that ``torchrun`` started, or makes a job of one process.

    :param device: "auto", "cpu" or "cuda".
    :param hang_timeout: seconds without progress after which the job is ended; none = never.
    :param longest: seconds that ranks wait in an exchange for one of which the watchdog thinks well.
    :raises UserError: cuda is asked for and there is none, or there are fewer GPUs than ranks.
    :raises RuntimeError: torch sees fewer GPUs than SLURM has given.
    """
    rank, world, local_rank = (int(os.environ.get(name, default)) for name, default in _VARIABLES)
    gpu = _computes_on_gpu(device, local_rank)
    if gpu:
        torch.cuda.set_device(local_rank)
    else:
        torch.set_num_threads(cores_per_rank())
        keep_memory()
    # Small host-side agreements go over gloo, so that they never wait for the GPU's queue.
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    STOP.listen()
    if "MASTER_ADDR" in os.environ:
        _meet_by_address(os.environ["MASTER_ADDR"])
        # Ranks wait for each other no longer than the watchdog does: it knows better whom to blame.
        timeout = timedelta(seconds=max(longest, 2 * (hang_timeout or 0)))
        store, rank, world = meet(hang_timeout or timeout.total_seconds())
        dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=world)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    watchdog = None
    if hang_timeout is not None:
        # A connection of its own: a main thread that waits in the store would block the other's beats.
        watchdog = Watchdog(dist.distributed_c10d._get_default_store().clone(), rank, world, hang_timeout)
    well = False
    try:
        where = torch.device("cuda", local_rank) if gpu else torch.device("cpu")
        yield Ranks(rank, world, local_rank, where, watchdog)
        well = True
    except Preempted:
        well = not gpu  # all ranks leave together
        raise
    finally:
        if watchdog is not None:
            watchdog.close()
        # After an error the process just ends. NCCL's goodbye would wait for the other ranks, which may be
        # waiting for this one; gloo's would end them at once, with a fault of theirs before this one is told.
        if well or world == 1:
            dist.destroy_process_group()


def _computes_on_gpu(device: str, local_rank: int) -> bool:
    if device == "cpu":
        return False
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (given := gpus_given(os.environ)) > seen:
        if torch.version.cuda is None:
            raise UserError(
                f"this torch ({torch.__version__}) is built without CUDA; write train.device: cpu"
            )
        # No mistake of the user's, and no reason to train on CPUs: the job is queued again, maybe elsewhere.
        raise RuntimeError(
            f"{os.environ['SLURMD_NODENAME']}: SLURM has given {given} GPUs, torch sees {seen}: the driver "
            f"is older than CUDA {torch.version.cuda}, or a GPU fell off the bus; nvidia-smi there tells"
        )
    if device == "cuda" and not seen:
        raise UserError("train.device: cuda is asked for, but torch sees no GPU; write auto or cpu")
    if seen and local_rank >= seen:
        raise UserError(
            f"torchrun --nproc-per-node: local rank {local_rank} has no GPU, this node has {seen}; "
            "start at most that many"
        )
    return seen > 0


def gpus_given(environment: Mapping[str, str]) -> int:
    """GPUs that SLURM has given to a step on its node, but no more than CUDA_VISIBLE_DEVICES lets through.

    0 outside of a job, and in a shell of ``salloc``, which may be on another machine.
    """
    if "SLURMD_NODENAME" not in environment:
        return 0
    given = int(environment.get("SLURM_GPUS_ON_NODE") or 0)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return given
    named = list(takewhile(lambda each: each and not each.startswith("-"), visible.split(",")))
    # Of slices of GPUs a process sees one (NVIDIA, Multi-Instance GPU User Guide, CUDA device enumeration).
    sliced = any(each.startswith("MIG-") for each in named)
    return min(given, 1 if sliced else len(named))


def _meet_by_address(master: str) -> None:
    """Gloo listens where this machine's name leads, which may be localhost; here it is told the network on
    which the first rank is seen, unless the user has named one."""
    with suppress(OSError):  # torch says best what is wrong with an address
        if interface := interface_with(address_towards(master)):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
