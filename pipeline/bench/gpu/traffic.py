"""What a training step must move and compute, by kind of work, counted from the network's shapes.

Each operation reads its inputs and writes its outputs once in memory: what a cache saves is not counted, nor
what a kernel reads twice. *Fused* is what is left where batch norm, the addition of the shortcut and ReLU are
one pass over memory, in both directions. Passes over a tensor, forward + backward:

- batch norm: 3 + 5; statistics, then normalise; backward reduces over input and gradient, then uses both
- ReLU, in place: 2 + 3; fused: none
- addition: 3 + 3; backward adds the gradients of both branches; fused: 1 + 1
- convolution: input and output, for the result, for the input's gradient and for the weights'
"""

from collections import Counter
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from pipeline.models import build
from pipeline.models.net import Residual

CONVOLUTION = "convolution and matrix products"
NORM = "batch norm"
ELEMENTWISE = "ReLU and additions"
POOL = "pooling"
OPTIMIZER = "optimizer and casts"
PER_PARAMETER = 30
"""Bytes: fused SGD reads weight, gradient and momentum and writes two of them (20), the gradient's norm is
taken (4), the weight is cast for the next forward pass (6); all in fp32, cast to two bytes."""


@dataclass(frozen=True)
class Work:
    """Of a step. :ivar bytes: each operation by itself; ``fused`` too. :ivar flops: 2 a multiply-add."""

    bytes: float = 0.0
    fused: float = 0.0
    flops: float = 0.0


def traffic(name: str, size: int, batch: int, classes: int, item: int = 2) -> dict[str, Work]:
    """By kind of work. :param item: bytes of a number of the pictures' activations."""
    plain, fused, flops = Counter(), Counter(), Counter()
    first = True

    def note(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal first
        inputs, outputs = (item * batch * prod(each.shape[1:]) for each in (given[0], out))
        if isinstance(module, nn.Conv2d | nn.Linear):
            macs = batch * module.weight.numel() * prod(out.shape[2:])
            passes = 2 if first else 3  # nobody wants the pictures' gradient
            moved = passes * (inputs + outputs + item * module.weight.numel())
            plain[CONVOLUTION] += moved
            fused[CONVOLUTION] += moved
            flops[CONVOLUTION] += 2 * passes * macs
            first = False
        elif isinstance(module, nn.BatchNorm2d):
            plain[NORM] += 8 * inputs
            fused[NORM] += 8 * inputs
        elif isinstance(module, nn.ReLU):
            plain[ELEMENTWISE] += 5 * inputs
        elif isinstance(module, Residual):
            plain[ELEMENTWISE] += 3 * outputs + 3 * inputs
            fused[ELEMENTWISE] += outputs + inputs
        elif isinstance(module, nn.MaxPool2d):
            # Where each maximum was is kept as int64.
            both = 2 * (inputs + outputs) + 2 * 8 * outputs // item
            plain[POOL] += both
            fused[POOL] += both
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            plain[POOL] += 2 * (inputs + outputs)
            fused[POOL] += 2 * (inputs + outputs)

    model = build(name, classes).eval()
    for module in model.modules():
        module.register_forward_hook(note)
    with torch.no_grad():  # one real picture: shapes alone take torch longer, for it imports their rules
        model(torch.zeros(1, 3, size, size))
    plain[OPTIMIZER] = fused[OPTIMIZER] = PER_PARAMETER * sum(one.numel() for one in model.parameters())
    return {kind: Work(plain[kind], fused[kind], flops[kind]) for kind in plain}
