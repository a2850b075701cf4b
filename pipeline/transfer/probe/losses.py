"""What a linear probe is fitted to: one class a picture (softmax), or each class by itself (one-vs-rest).

Both are convex functions of the logits Z, (N, C). A solver wants their value, their slope (N, C), and their
curvature: the second derivatives' diagonal, (N, C), and along a direction.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Loss(Protocol):
    def value(self, logits: Tensor) -> Tensor:
        """The sum over pictures, ()."""

    def shares(self, logits: Tensor) -> Tensor:
        """(N, C) probabilities, from which the rest follows."""

    def slope(self, shares: Tensor) -> Tensor:
        """The loss's derivative by the logits, (N, C)."""

    def curvature(self, shares: Tensor) -> Tensor:
        """Its second derivative by each logit, (N, C)."""

    def bend(self, shares: Tensor, direction: Tensor) -> Tensor:
        """Its second derivative along a direction (N, C) of the logits, ()."""


@dataclass(frozen=True)
class Softmax:
    """Multinomial: sum_i log sum_k exp z_ik - z_iy. :ivar labels: (N,) int64."""

    labels: Tensor

    def value(self, logits: Tensor) -> Tensor:
        return (logits.logsumexp(1) - logits.gather(1, self.labels[:, None])[:, 0]).sum()

    def shares(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)

    def slope(self, shares: Tensor) -> Tensor:
        return shares.scatter_add(1, self.labels[:, None], -torch.ones_like(shares[:, :1]))

    def curvature(self, shares: Tensor) -> Tensor:
        return shares * (1 - shares)

    def bend(self, shares: Tensor, direction: Tensor) -> Tensor:
        mean = (shares * direction).sum(1, keepdim=True)
        return (shares * (direction - mean) ** 2).sum()


@dataclass(frozen=True)
class OneVsRest:
    """Binary, class by class: sum_ik log(1 + exp(-t_ik z_ik)), over the entries whose target is not 0.

    :ivar targets: (N, C): 1 shown, -1 not shown, 0 left out.
    """

    targets: Tensor

    def value(self, logits: Tensor) -> Tensor:
        return (functional.softplus(-self.targets * logits) * self.targets.abs()).sum()

    def shares(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def slope(self, shares: Tensor) -> Tensor:
        return (shares - (self.targets > 0).to(shares.dtype)) * self.targets.abs()

    def curvature(self, shares: Tensor) -> Tensor:
        return shares * (1 - shares) * self.targets.abs()

    def bend(self, shares: Tensor, direction: Tensor) -> Tensor:
        return (self.curvature(shares) * direction**2).sum()
