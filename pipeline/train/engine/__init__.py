"""The engine: one optimizer step over all ranks, in mixed precision. DDP or DeepSpeed stands behind it."""

from torch import nn

from pipeline.config import TrainConfig
from pipeline.train.engine.base import Engine, Stepped
from pipeline.train.engine.precision import autocast, precision_dtype
from pipeline.train.ranks import Ranks

__all__ = ["Engine", "Stepped", "autocast", "build_engine", "precision_dtype"]


def build_engine(model: nn.Module, config: TrainConfig, ranks: Ranks) -> Engine:
    """The config's engine around a model that is on its device, in its memory format.

    :raises UserError: the engine cannot do what the config asks of it.
    """
    if config.engine == "deepspeed":
        from pipeline.train.engine.zero import ZeroEngine  # importing DeepSpeed takes ten seconds

        return ZeroEngine(model, config, ranks)
    from pipeline.train.engine.ddp import DDPEngine

    return DDPEngine(model, config, ranks)
