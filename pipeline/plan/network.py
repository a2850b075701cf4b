"""What a config's network costs, counted from the network itself."""

from dataclasses import dataclass

import torch
from torch import nn

from pipeline.config import TrainConfig
from pipeline.models import build
from pipeline.models.cost import Layer, Saved, layers, saved
from pipeline.train.weights import switches

FP32 = 4
"""Bytes of a parameter, of its gradient, and of each number of the optimizer's state, in every precision."""


@dataclass(frozen=True)
class Network:
    """:ivar layers: in the order of the forward pass, at the largest side of the training's pictures.
    :ivar saved: bytes from forward to backward, in the run's precision.
    :ivar channels: of every batch norm.
    :ivar buffers: bytes of statistics, with the counters beside them.
    """

    name: str
    size: int
    precision: str
    layers: tuple[Layer, ...]
    saved: Saved
    channels: tuple[int, ...]
    buffers: int

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-adds of one picture's forward pass; the whole step does three times as many."""
        return sum(layer.macs for layer in self.layers)

    @property
    def bytes(self) -> int:
        """Of all weights; the gradients have as many."""
        return FP32 * self.parameters


def network_of(config: TrainConfig, classes: int) -> Network:
    """:raises UserError: the config's model cannot be built."""
    with torch.device("meta"):
        model = build(config.model.name, classes, **switches(config.model))
    precision = "bf16" if config.train.precision == "auto" else config.train.precision
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    size = config.data.pictures.size
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    return Network(
        config.model.name,
        size,
        precision,
        tuple(layers(model, size)),
        saved(model, size, dtype),
        tuple(norm.num_features for norm in norms),
        sum(buffer.nbytes for buffer in model.buffers()),
    )
