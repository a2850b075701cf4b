"""L-BFGS for a penalised convex loss of linear logits, where a product with the features is what costs.

    F(V) = loss(X V^T) + lambda ||V||^2, the last column of V, the bias, unpenalised

An iteration is Nocedal & Wright 2006, "Numerical Optimization", algorithms 7.4 and 7.5, with three things
that a general program cannot do:
- the logits of a point on a line are known from those of its ends, so a line search costs no product with X;
  an iteration has two, one for the direction's logits and one for the gradient;
- the first guess of the inverse Hessian is 1 / (its diagonal), not a multiple of the identity;
- another lambda changes the Hessian by a known multiple of the identity, so the pairs (step, change of
  gradient) of the one before stay true when that is added.
"""

from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.transfer.probe.losses import Loss

PAIRS = 30
"""That L-BFGS remembers."""
STEEP = 0.1
"""A line search ends where the slope has fallen to this share of what it was."""
FRESH = 10
"""Iterations between looks at the Hessian's diagonal, each of which costs as much as half an iteration."""
PATIENCE = 200
"""Iterations without a smaller gradient after which rounding is all that moves."""
TRIALS = 20
"""Of a line search, at most."""


@dataclass
class Point:
    """weight: (C, D), logits: (N, C), float64."""

    weight: Tensor
    logits: Tensor

    def moved(self, direction: "Point", step: float) -> "Point":
        return Point(
            torch.add(self.weight, direction.weight, alpha=step),
            torch.add(self.logits, direction.logits, alpha=step),
        )


@dataclass
class Penalised:
    """F at one lambda. :ivar inputs: (N, D) float32 or float64, the last column 1."""

    loss: Loss
    inputs: Tensor
    lam: float = 1.0

    def value(self, at: Point) -> float:
        return float(self.loss.value(at.logits) + self.lam * (at.weight[:, :-1] ** 2).sum())

    def logits(self, weight: Tensor) -> Tensor:
        return (self.inputs @ weight.T.to(self.inputs.dtype)).double()

    def gradient(self, at: Point, shares: Tensor) -> Tensor:
        slope = self.loss.slope(shares).to(self.inputs.dtype)
        return (slope.T @ self.inputs).double().add_(self.penalty(at.weight))

    def penalty(self, weight: Tensor) -> Tensor:
        """The penalty's gradient, (C, D)."""
        out = 2 * self.lam * weight
        out[:, -1] = 0
        return out

    def diagonal(self, shares: Tensor) -> Tensor:
        """Of the Hessian, (C, D)."""
        curvature = self.loss.curvature(shares).to(self.inputs.dtype)
        parts = zip(curvature.split(ROWS), self.inputs.split(ROWS), strict=True)
        found = sum(some.T @ rows**2 for some, rows in parts).double()
        found[:, :-1] += 2 * self.lam
        return found.clamp_(min=1e-30)

    def gap(self, gradient: Tensor, diagonal: Tensor, value: float) -> float:
        """F above its minimum, relative: at most ||gradient||^2 / (4 lambda F) by strong convexity in the
        weights, and about gradient^2 / (2 curvature F) in the biases, which no penalty holds."""
        weights = (gradient[:, :-1] ** 2).sum() / (4 * self.lam)
        biases = (gradient[:, -1] ** 2 / diagonal[:, -1]).sum() / 2
        return float(weights + biases) / max(value, torch.finfo(torch.float64).tiny)


ROWS = 4096
"""Of which squares are held at once."""


@dataclass
class Memory:
    """Pairs of a step and the change of the gradient, (C, D) each.

    :ivar dtype: in which they are kept and a direction is computed; no direction needs to be exact.
    """

    dtype: torch.dtype
    pairs: deque = field(default_factory=lambda: deque(maxlen=PAIRS))

    def add(self, step: Tensor, change: Tensor) -> None:
        step, change = step.to(self.dtype), change.to(self.dtype)
        product = _dot(step, change)
        if product > 1e-14 * float(step.norm() * change.norm()):
            self.pairs.append((step, change, product))

    def penalised(self, more: float) -> None:
        """As if lambda had been greater by ``more`` all the time."""
        before, self.pairs = self.pairs, deque(maxlen=PAIRS)
        for step, change, _ in before:
            change = torch.add(change, step, alpha=2 * more)
            change[:, -1] -= 2 * more * step[:, -1]
            self.add(step, change)

    def direction(self, gradient: Tensor, diagonal: Tensor) -> Tensor:
        """- H gradient, by the two loops over the pairs."""
        out, factors = -gradient.to(self.dtype), []
        for step, change, product in reversed(self.pairs):
            factors.append(_dot(step, out) / product)
            out.add_(change, alpha=-factors[-1])
        out /= diagonal.to(self.dtype)
        for (step, change, product), factor in zip(self.pairs, reversed(factors), strict=True):
            out.add_(step, alpha=factor - _dot(change, out) / product)
        return out.double()


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.view(-1), other.view(-1)))


def minimise(
    problem: Penalised, start: Point, memory: Memory, tolerance: float, limit: int
) -> tuple[Point, float, int]:
    """From ``start`` until F is within ``tolerance`` of its minimum, relative, for certain.

    :param memory: of the lambda before; it is changed. :param limit: iterations.
    :return: where it ended, the bound there, and iterations. It ends early where rounding lets no line fall.
    """
    at, shares = start, problem.loss.shares(start.logits)
    gradient, diagonal, value = problem.gradient(at, shares), problem.diagonal(shares), problem.value(at)
    least, since = float("inf"), 0
    for number in range(limit + 1):
        gap = problem.gap(gradient, diagonal, value)
        if gap < tolerance or number == limit:
            value = problem.value(at)  # it falls: looked at only where it matters
            gap = problem.gap(gradient, diagonal, value)
        least, since = (gap, number) if gap < least else (least, since)
        if gap < tolerance or number == limit or number - since > PATIENCE:
            break
        way = memory.direction(gradient, diagonal)
        direction = Point(way, problem.logits(way))
        found = _line(problem, at, direction, float((gradient * way).sum()))
        if found is None:
            break
        step, shares = found
        if number % FRESH == FRESH - 1:
            diagonal = problem.diagonal(shares)
        at, before = at.moved(direction, step), gradient
        gradient = problem.gradient(at, shares)
        memory.add(step * way, gradient - before)
    return at, gap, number


def _line(problem: Penalised, at: Point, along: Point, first: float) -> tuple[float, Tensor] | None:
    """How far to go, and the shares there: Newton's method on F's slope along a line, kept in a bracket.

    :param first: the slope at the start.
    """
    loss, weight, way = problem.loss, at.weight[:, :-1], along.weight[:, :-1]
    linear, square = (2 * problem.lam * float((way * other).sum()) for other in (weight, way))

    def look(step: float) -> tuple[float, float, Tensor]:
        shares = loss.shares(torch.add(at.logits, along.logits, alpha=step))
        slope = float((loss.slope(shares) * along.logits).sum()) + linear + square * step
        return slope, float(loss.bend(shares, along.logits)) + square, shares

    if not first < 0:
        return None
    low, high, step = 0.0, float("inf"), 1.0
    for _ in range(TRIALS):
        slope, bend, shares = look(step)
        if abs(slope) <= -STEEP * first:
            return step, shares
        low, high = (step, high) if slope < 0 else (low, step)
        newton = step - slope / bend if bend > 0 else float("inf")
        if not low < newton < high:
            newton = 2 * step if high == float("inf") else (low + high) / 2
        step = min(newton, 10 * step)
    return None
