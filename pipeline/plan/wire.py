"""What a rank sends in a step: bytes and calls, by what they are for.

A ring all-reduce of S bytes over n ranks sends 2 (n - 1) / n S from every rank, and none can send less
(Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations"); all-gather
and reduce-scatter are its halves.
"""

from dataclasses import dataclass

from pipeline.config import TrainConfig
from pipeline.plan.memory import DDP, engine_of
from pipeline.plan.network import FP32, Network

DDP_BUCKET, DDP_FIRST_BUCKET = 25 * 2**20, 2**20
"""Bytes: torch's DistributedDataParallel sends a bucket when it is full; the first one is small."""


@dataclass(frozen=True)
class Exchange:
    """:ivar sent: bytes that leave one rank in a step. :ivar calls: collectives in a step.
    :ivar hidden: whether it goes on beside the backward pass.
    :ivar rounds: micro-batches of a step in which it happens.
    """

    what: str
    sent: float
    calls: int
    hidden: bool = False
    rounds: int = 1


def exchanges(
    network: Network, config: TrainConfig, ranks: int, engine: str | int | None = None
) -> list[Exchange]:
    """All that a rank sends in one step under ``engine``, one of ``memory.ENGINES``; none = the config's."""
    if ranks == 1:
        return []
    half = (ranks - 1) / ranks * network.bytes  # an all-gather or a reduce-scatter of the whole net
    turns = config.train.accumulate
    engine = engine_of(config) if engine is None else engine
    pieces = _pieces(network, DDP_BUCKET if engine == DDP else FP32 * config.deepspeed.bucket)
    hidden = config.deepspeed.overlap
    found = {
        DDP: lambda: [Exchange("gradients", 2 * half, pieces + 1, True)],
        0: lambda: [Exchange("gradients", 2 * half, 1)],
        # DeepSpeed 0.19.8 reduces to all ranks, also where one alone needs the sum.
        1: lambda: [Exchange("gradients", 2 * half, pieces, hidden), Exchange("weights", half, pieces)],
        2: lambda: [
            Exchange("gradients", turns * 2 * half, turns * pieces, hidden, turns),
            Exchange("weights", half, pieces),
        ],
        3: lambda: [
            Exchange("gradients", turns * half, turns * pieces, hidden, turns),
            Exchange("weights", turns * half, turns * len(network.layers)),
        ],
    }[engine]()
    return found + _norms(network, config, ranks)


def _norms(network: Network, config: TrainConfig, ranks: int) -> list[Exchange]:
    """SyncBatchNorm gathers mean, deviation and count in forward, and sums two gradients in backward."""
    if not config.train.sync_batchnorm or not network.channels:
        return []
    channels, norms = sum(network.channels), len(network.channels)
    gathered = (ranks - 1) * FP32 * (2 * channels + norms)
    summed = 2 * (ranks - 1) / ranks * FP32 * 2 * channels
    turns = config.train.accumulate
    return [Exchange("batch norm", turns * (gathered + summed), turns * 2 * norms)]


def _pieces(network: Network, bucket: int) -> int:
    return -(-network.bytes // bucket)
