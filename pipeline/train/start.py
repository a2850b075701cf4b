"""The network that a run starts with."""

from pathlib import Path

import torch
from torch import nn

from pipeline.config import Model, TrainConfig, UserError
from pipeline.models import build
from pipeline.train import checkpoint
from pipeline.train.ranks import Ranks


def build_model(config: TrainConfig, classes: list[str], ranks: Ranks) -> nn.Module:
    """Random weights by the seed, or ``model.checkpoint``'s, on the device in its memory format.

    A checkpoint's head is kept only if it answers for just these classes in this order.

    :raises UserError: the checkpoint cannot be read, or holds another network.
    """
    torch.manual_seed(config.seed)
    model = build(config.model.name, len(classes), **switches(config.model))
    if config.model.checkpoint is not None:
        state = checkpoint.read(config.model.checkpoint, "model.checkpoint")
        weights = weights_of(state, config.model.checkpoint, ema=config.model.ema)
        load_weights(model, weights, config.model, keep_head=state["classes"] == classes)
    memory = torch.channels_last if config.train.channels_last else torch.contiguous_format
    return model.to(ranks.device, memory_format=memory)


def weights_of(state: dict, path: str | Path, *, ema: bool) -> dict:
    """A checkpoint's weights, raw or their moving average.

    :raises UserError: the average is asked for, and the run kept none.
    """
    if ema and "ema" not in state:
        raise UserError(f"{path}: holds no moving average; train with train.ema, or use the raw weights")
    return state["ema" if ema else "model"]


def switches(model: Model) -> dict:
    """What ``models.build`` takes besides the name."""
    return model.model_dump(exclude={"name", "checkpoint", "ema"})


def load_weights(model: nn.Module, weights: dict, about: Model, keep_head: bool) -> None:
    """Copies a checkpoint's weights into the model; without ``keep_head`` its head stays as drawn."""
    head = f"{model.head_name}."
    wanted = {key for key in model.state_dict() if keep_head or not key.startswith(head)}
    weights = {key: value for key, value in weights.items() if keep_head or not key.startswith(head)}
    own = model.state_dict()
    wrong = sorted(wanted ^ weights.keys()) or [
        f"{key} {list(value.shape)}" for key, value in weights.items() if value.shape != own[key].shape
    ]
    if wrong:
        raise UserError(f"model.checkpoint: {about.checkpoint} does not hold a {about.name}: {wrong[0]}")
    model.load_state_dict(weights, strict=False)
