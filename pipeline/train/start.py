"""The network that a run starts with."""

import torch
from torch import nn

from pipeline.config import TrainConfig
from pipeline.models import build
from pipeline.train.ranks import Ranks
from pipeline.train.weights import Weights, load_weights, switches


def build_model(config: TrainConfig, classes: list[str], ranks: Ranks, *, begins: bool = True) -> nn.Module:
    """Random weights by the seed, or ``model.checkpoint``'s, on the device in its memory format.

    A checkpoint's head is kept only if it answers for just these classes in this order.

    :param begins: else the run's own weights will follow, and ``model.checkpoint`` may be gone by now.
    :raises UserError: the checkpoint cannot be read, or holds another network.
    """
    torch.manual_seed(config.seed)
    model = build(config.model.name, len(classes), **switches(config.model))
    if begins and config.model.checkpoint is not None:
        found = Weights.read(config.model.checkpoint, "model.checkpoint", ema=config.model.ema)
        load_weights(model, found.tensors, config.model, keep_head=found.classes == classes)
    memory = torch.channels_last if config.train.channels_last else torch.contiguous_format
    return model.to(ranks.device, memory_format=memory)
