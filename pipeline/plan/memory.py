"""Bytes that a rank's GPU holds in a step under each engine and ZeRO stage.

Rajbhandari et al. 2020 (arXiv:1910.02054, section 3) give the idea: stage 1 divides the optimizer's state by
the ranks, stage 2 the gradients too, stage 3 the weights too. What is counted here is what our engines keep.
"""

from dataclasses import dataclass

from pipeline.config import TrainConfig
from pipeline.plan.network import FP32, Network

DDP = "ddp"
ENGINES = (DDP, 0, 1, 2, 3)
"""DDP, or DeepSpeed at a stage."""


@dataclass(frozen=True)
class State:
    """Bytes on one rank at the peak of a step, besides the pictures' activations."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    """Of ``train.ema``."""
    buckets: int
    """Where gradients are gathered to be sent."""
    copy: int
    """Of the whole network, in which stage 3, or ``train.ema``, is evaluated."""
    statistics: int
    """Batch norm's, and their copy of before the step."""

    @property
    def total(self) -> int:
        return sum(vars(self).values())


def engine_of(config: TrainConfig) -> str | int:
    return DDP if config.engine == "ddp" else config.deepspeed.stage


def buffers_per_weight(config: TrainConfig) -> int:
    """Numbers that the optimizer keeps for each weight."""
    optim = config.optim
    if optim.name == "adamw":
        return 2
    return int(optim.name == "lars" or optim.momentum > 0)


def state(network: Network, config: TrainConfig, ranks: int, engine: str | int) -> State:
    """Of one of ``ranks`` under ``engine``, one of ``ENGINES``."""
    stage = 0 if engine == DDP else engine
    whole = network.bytes
    part = -(-network.parameters // ranks) * FP32
    averaged = part if stage == 3 else whole
    statistics = FP32 * 2 * sum(network.channels)
    copied = stage == 3 or config.train.ema is not None
    return State(
        # Stages 1 and 2 keep the whole model and a part of it that the optimizer changes; stage 3 keeps two
        # such parts, and has gathered the whole net, if it is below 10^9 numbers, when backward begins.
        weights={0: whole, 1: whole + part, 2: whole + part, 3: whole + 2 * part}[stage],
        gradients={0: whole, 1: whole + part, 2: part, 3: part}[stage],
        optimizer=buffers_per_weight(config) * (part if stage else whole),
        average=0 if config.train.ema is None else averaged + statistics,
        buckets=_buckets(network, config, engine),
        copy=whole + network.buffers if copied else 0,
        statistics=2 * network.buffers,
    )


def _buckets(network: Network, config: TrainConfig, engine: str | int) -> int:
    """DDP's buckets are the gradients themselves."""
    if engine == DDP:
        return 0
    if engine == 0:
        return network.bytes  # all gradients in one piece
    bucket = FP32 * config.deepspeed.bucket
    return bucket * (2 if config.deepspeed.overlap else 1)
