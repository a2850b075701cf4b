"""How far gradients agree: between mini-batches, between inputs, between draws of the later layers."""

import torch
from torch import Tensor, nn

from pipeline.study.chain import Chain


def gradients(chain: Chain, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Of the mean cross-entropy, by part of the chain: each (P_part,), its parameters' one after another."""
    own = [list(part.parameters()) for part in chain.parts]
    logits = chain.outputs(images)[1]
    loss = nn.functional.cross_entropy(logits, labels)
    found = iter(torch.autograd.grad(loss, [each for part in own for each in part]))
    return [torch.cat([next(found).flatten() for _ in part]) for part in own]


def agreement(vectors: Tensor) -> float:
    """Mean cosine of all pairs of (K, P) vectors; vectors of length 0 are at right angles to all."""
    unit = nn.functional.normalize(vectors.double(), dim=1, eps=1e-300)
    lengths = unit.square().sum(1)
    count = len(vectors)
    return float((unit.sum(0).square().sum() - lengths.sum()) / (count * (count - 1)))


def signal_to_noise(vectors: Tensor) -> float:
    """|g|² / E |g_k − g|² of K independent estimates g_k, (K, P), of one gradient g; NaN without noise.

    Signal and noise without bias, as ``pipeline.monitor.gradients``: (K |mean|² − Q) / (K − 1) and
    (Q − |mean|²) K / (K − 1), with Q the mean of |g_k|². The signal may come out below zero.
    """
    vectors, count = vectors.double(), len(vectors)
    mean = float(vectors.mean(0).square().sum())
    squares = float(vectors.square().sum(1).mean())
    noise = (squares - mean) * count
    return (count * mean - squares) / noise if noise > 0 else float("nan")


def autocorrelation(gradient: Tensor, lags: int) -> list[float]:
    """C(τ) = mean_t ⟨g_t, g_{t+τ}⟩ / mean_t |g_t|² for τ = 0 … lags − 1 of (T, D) gradients along a line.

    1 where the gradient does not change with the input, 0 for white noise: "shattered" (Balduzzi et al.
    2017, arXiv:1702.08591, who show it of one output on one-dimensional inputs).
    """
    gradient, length = gradient.double().flatten(1), len(gradient)
    power = float(gradient.square().sum(1).mean())
    if not power > 0:
        return [float("nan")] * lags
    return [float((gradient[: length - lag] * gradient[lag:]).sum(1).mean()) / power for lag in range(lags)]


def along_line(model: nn.Module, start: Tensor, end: Tensor, places: int, output: Tensor) -> Tensor:
    """∂⟨output, logits⟩/∂x at ``places`` equal steps from one picture (3, S, S) to another: (T, 3, S, S).

    :param model: whose pictures do not mix: normalised by fixed statistics.
    """
    t = torch.linspace(0, 1, places, device=start.device).view(-1, 1, 1, 1)
    line = (start + t * (end - start)).requires_grad_()
    return torch.autograd.grad((model(line) @ output).sum(), line)[0]
