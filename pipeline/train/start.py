"""The network that a run starts with."""

import torch
from torch import nn

from pipeline.config import TrainConfig, UserError
from pipeline.models import Pattern, build
from pipeline.progress import say
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
    if config.train.deterministic and ranks.device.type == "cuda":
        refuse_random_pool(config, model.pattern)
    if begins and config.model.checkpoint is not None:
        found = Weights.read(config.model.checkpoint, "model.checkpoint", ema=config.model.ema)
        same = found.classes == classes
        load_weights(model, found.tensors, config.model, keep_head=same)
        head = found.tensors.get(f"{model.head_name}.weight")
        if ranks.first and not same and head is not None and head.shape == model.head.weight.shape:
            why = "does not name its classes" if found.classes is None else "names other classes"
            say(f"model.checkpoint: {config.model.checkpoint} {why}; its head would fit, and is drawn anew")
    memory = torch.channels_last if config.train.channels_last else torch.contiguous_format
    return model.to(ranks.device, memory_format=memory)


def refuse_random_pool(config: TrainConfig, pattern: Pattern) -> None:
    """VGG's pool is deterministic on a GPU only where its grid divides the positions (``net.GridPool``).

    :raises UserError: pictures to train on have another size, or will have.
    """
    pictures = config.data.pictures
    sides = [("size", pictures.size)]
    if (grows := pictures.progressive) and grows.epochs[1] > 0:
        begin, end = grows.epochs
        between = range(grows.multiple, pictures.size, grows.multiple) if begin < end else ()
        sides.append(("progressive.start", grows.start))
        sides += [("progressive.multiple", side) for side in between if side > grows.start]
    for key, side in sides:
        if side // pattern.stride % pattern.grid:
            raise UserError(
                f"data.pictures.{key}: {config.model.name} on pictures of {side} pixels cannot be "
                f"deterministic on a GPU; give a multiple of {pattern.grid * pattern.stride}, or "
                "train.deterministic: false"
            )
