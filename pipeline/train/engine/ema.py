"""An exponential moving average of the weights, kept beside them and evaluated in their place."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """:param decay: per step. In a run's first steps it is less, (1 + t) / (10 + t), so that random weights
    are soon forgotten (as TensorFlow's ExponentialMovingAverage with ``num_updates``).
    :param tensors: what is averaged, as it is now: a rank's own weights and batch-norm statistics.
    """

    def __init__(self, decay: float, tensors: Sequence[Tensor]):
        self.decay = decay
        self._mean = [tensor.detach().clone() for tensor in tensors]

    @torch.no_grad()
    def follow(self, tensors: Sequence[Tensor], step: int) -> None:
        """mean := d mean + (1 - d) tensors, after step ``step`` (1-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._mean, list(tensors), 1 - decay)

    @contextmanager
    def inside(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Within it, ``tensors`` hold the average."""
        raw = [tensor.detach().clone() for tensor in tensors]
        self._put(tensors, self._mean)
        try:
            yield
        finally:
            self._put(tensors, raw)

    @torch.no_grad()
    def _put(self, tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)
