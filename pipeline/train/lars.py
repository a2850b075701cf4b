"""LARS: every layer's step is as long as its weights are, whatever the length of its gradient.

You, Gitman, Ginsburg 2017, "Large Batch Training of Convolutional Networks" (arXiv:1708.03888), Algorithm 1.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """A stretch of a flat tensor that belongs to one layer."""

    offset: int
    numel: int
    layer: int
    """Of 0..layers-1; the same on all ranks that hold a piece of the layer."""


class LARS(torch.optim.Optimizer):
    """For a layer's weights w with gradient g, at learning rate lr:

        ratio = trust |w| / (|g| + weight_decay |w|)              (equation 6; 1 where |w| or |g| is 0)
        momentum_buffer := momentum momentum_buffer + lr ratio (g + weight_decay w)
        w := w - momentum_buffer

    The learning rate enters the momentum, as in the paper; in torch's SGD, and in timm's Lars, it does not.
    With a constant learning rate both are the same.

    Norms are summed in float64: in float32 two million squares err by 4e-5 (torch 2.15, one CPU thread), and
    differently where ranks hold pieces of a layer. Nothing here waits for a GPU.

    :param params: tensors, or groups of them; every tensor is one layer, until ``shard`` says otherwise.
    :param trust: the paper's eta; none = no ratio, plain SGD in the notation above. A group may have its own.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float | None = 0.001,
    ):
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, defaults)
        self._shards: _Shards | None = None

    def shard(
        self,
        segments: dict[Tensor, Sequence[Segment]],
        layers: int,
        reduce: Callable[[Tensor], object],
    ) -> None:
        """Makes the ratios those of whole layers, where a rank's tensors are flat pieces of several layers.

        For ZeRO: call it after ``deepspeed.initialize``, on the optimizer that DeepSpeed wraps. Each ``step``
        then calls ``reduce`` once per group that has a ratio and tensors, so all ranks must step the same
        groups in the same order; that a rank's tensor holds no piece of any layer is fine.

        :param segments: for every flat tensor (n,) of groups with a ratio, what it holds. What no segment
            covers is padding, and belongs to no layer.
        :param layers: how many there are; ``reduce`` gets squared norms of all of them at once, (2, layers).
        :param reduce: sums a float64 tensor over the ranks, in place.
        """
        self._shards = _Shards(segments, layers, reduce)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            weights = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            updates = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
            if group["trust"] is not None:
                self._adapt(updates, weights, gradients, group["trust"], group["weight_decay"])
            buffers = [self._momentum_buffer(weight) for weight in weights]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates, alpha=group["lr"])
            torch._foreach_sub_(weights, buffers)

    def _adapt(
        self,
        updates: Sequence[Tensor],
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        trust: float,
        weight_decay: float,
    ) -> None:
        """Multiplies each layer's update by the layer's ratio, in place."""
        if self._shards is None:
            w, g = _norms(weights, gradients)
        else:
            layers = self._shards.layers_of(weights)
            updates, pieces, gradients = (
                self._shards.cut(tensors, weights) for tensors in (updates, weights, gradients)
            )
            norms = _norms(pieces, gradients) if pieces else layers.new_zeros(2, 0, dtype=torch.float64)
            w, g = self._shards.whole(norms, layers)
        ratios = torch.where((w > 0) & (g > 0), trust * w / (g + weight_decay * w), 1.0)
        if updates:
            torch._foreach_mul_(updates, ratios.to(updates[0].dtype).unbind())

    def _momentum_buffer(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        return state["momentum_buffer"]


class _Shards:
    """Which pieces of which layers this rank's flat tensors hold."""

    def __init__(self, segments: dict[Tensor, Sequence[Segment]], layers: int, reduce: Callable):
        for tensor, held in segments.items():
            assert all(0 <= s.offset <= s.offset + s.numel <= tensor.numel() for s in held), held
            assert all(0 <= s.layer < layers for s in held), held
        self._segments, self._layers, self._reduce = segments, layers, reduce
        # Once, so that no step copies them to the GPU.
        self._numbers = {
            tensor: torch.tensor([s.layer for s in held], dtype=torch.int64, device=tensor.device)
            for tensor, held in segments.items()
        }

    def layers_of(self, flats: Sequence[Tensor]) -> Tensor:
        """The number of each piece's layer, (pieces,)."""
        return torch.cat([self._numbers[flat] for flat in flats])

    def cut(self, tensors: Sequence[Tensor], flats: Sequence[Tensor]) -> list[Tensor]:
        """The pieces of tensors that lie as ``flats`` do, as views."""
        return [
            tensor.narrow(0, s.offset, s.numel)
            for tensor, flat in zip(tensors, flats, strict=True)
            for s in self._segments[flat]
        ]

    def whole(self, norms: Tensor, layers: Tensor) -> Tensor:
        """From norms of this rank's pieces, (2, pieces), those of their whole layers, (2, pieces)."""
        squares = norms.new_zeros(2, self._layers).index_add_(1, layers, norms.square())
        self._reduce(squares)
        return squares.sqrt()[:, layers]


def _norms(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """(2, tensors), float64."""
    return torch.stack(torch._foreach_norm([*weights, *gradients], 2, torch.float64)).view(2, -1)
