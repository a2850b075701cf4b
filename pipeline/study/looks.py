"""One look at a net's gradients: every figure of the study of gradients, of one net at one step."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Looks
from pipeline.models import ConvNet
from pipeline.study.chain import Chain, before_relu, by_batch, by_fixed
from pipeline.study.jacobian import Linear, eigenvalues
from pipeline.study.noise import agreement, along_line, autocorrelation, gradients, signal_to_noise

LAGS = 13
"""On a line between two pictures, from 0."""


@dataclass(frozen=True)
class Seen:
    """What a net is shown: (b, 3, S, S) and (b,), on the device."""

    images: Tensor
    labels: Tensor


def look(
    model: ConvNet, seen: list[Seen], redrawn: Callable[[int], ConvNet], settings: Looks, seed: int
) -> dict:
    """All figures, as JSON has them; what is not finite is none.

    :param seen: ``settings.batches`` mini-batches. :param redrawn: the same net, drawn with another seed.
    """
    generator = torch.Generator().manual_seed(seed)
    chain = Chain(by_batch(model))
    first = seen[0]
    fixed = by_fixed(model, first.images)
    found = {
        **backward(chain, first),
        **jacobians(chain, first.images[: settings.linear], settings, generator),
        **noise(chain, seen),
        "autocorrelation": shattering(fixed, first.images, settings, generator),
        **spectrum(Chain(fixed), first.images[:1]),
        "redrawn": redraw(model, first, redrawn, settings.redraws),
    }
    return {key: _plain(value) for key, value in found.items()}


def backward(chain: Chain, seen: Seen) -> dict:
    """``norms``: ‖∂L/∂zᵢ‖ for i = 0 … N, of the mean loss of the batch."""
    outputs, logits = chain.outputs(seen.images)
    loss = torch.nn.functional.cross_entropy(logits, seen.labels)
    return {"norms": [float(each.double().norm()) for each in torch.autograd.grad(loss, outputs)]}


def jacobians(chain: Chain, images: Tensor, settings: Looks, generator: torch.Generator) -> dict:
    """Of ∂z_N/∂zᵢ at ``points`` i: a random vector's stretching and the largest singular value."""
    count = len(chain.blocks)
    points = np.unique(np.linspace(0, count - 1, min(settings.points, count)).round().astype(int))
    with torch.no_grad():
        outputs, _ = chain.outputs(images)
    products = [Linear(chain.from_to(int(i), count), outputs[i]) for i in points]
    return {
        "points": points,
        "typical": [each.typical(settings.probes, generator) for each in products],
        "largest": [each.largest(settings.iterations, generator) for each in products],
    }


def noise(chain: Chain, seen: list[Seen]) -> dict:
    """By part of the chain, over mini-batches: ``cosine`` of two, ``snr`` of one."""
    found = [gradients(chain, each.images, each.labels) for each in seen]
    parts = [torch.stack(part) for part in zip(*found, strict=True)]
    return {"cosine": list(map(agreement, parts)), "snr": list(map(signal_to_noise, parts))}


def shattering(fixed: ConvNet, images: Tensor, settings: Looks, generator: torch.Generator) -> list[float]:
    """The autocorrelation C(τ) of ∂⟨u, logits⟩/∂x, mean over lines between pictures, each with its own u."""
    lags = min(LAGS, settings.places)
    lines = min(settings.lines, len(images) // 2)
    found = []
    for start, end in zip(images[:lines], images[lines : 2 * lines], strict=True):
        output = torch.randn(fixed.head.out_features, generator=generator).to(images)
        gradient = along_line(fixed, start, end, settings.places, output)
        found.append(autocorrelation(gradient, lags))
    return np.mean(found, 0)


def spectrum(chain: Chain, image: Tensor) -> dict:
    """``eigenvalues``, (D, 2) real and imaginary, of the middle block of the last stage before its last ReLU.

    Without that ReLU, ∂z′/∂z is ∂F/∂z for a plain block, ∂F/∂z + I for a residual one.
    """
    middle = (
        chain.stages[-2] + 1 + len(chain.blocks)
    ) // 2  # never the block that halves, if there is another
    middle = min(middle, len(chain.blocks) - 1)
    with torch.no_grad():
        z = chain.outputs(image)[0][middle]
    if middle == chain.stages[-2]:
        return {"eigenvalues": []}
    values = eigenvalues(before_relu(chain.blocks[middle]), z)
    return {"eigenvalues": np.stack([values.real, values.imag], 1)}


def redraw(model: ConvNet, seen: Seen, redrawn: Callable[[int], ConvNet], draws: int) -> float:
    """Agreement (cosine) of the gradients of stem and first stage, where only what follows is drawn anew."""
    found = []
    for draw in range(draws):
        other = redrawn(draw)
        mine, others = Chain(model), Chain(other)
        early = mine.stages[1] + 1  # the stem, and the blocks of the first stage
        for own, new in zip(mine.parts[:early], others.parts[:early], strict=True):
            new.load_state_dict(own.state_dict())
        found.append(torch.cat(gradients(Chain(by_batch(other)), seen.images, seen.labels)[:early]))
    return agreement(torch.stack(found))


def _plain(value):
    if np.ndim(value):
        return [_plain(each) for each in value]
    if isinstance(value, int | np.integer):
        return int(value)
    return float(f"{value:.5g}") if math.isfinite(value) else None
