"""A probe's problem for one set of pictures, in coordinates where L-BFGS needs few steps."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from pipeline.config import UserError
from pipeline.transfer.probe.lbfgs import Memory, Penalised, Point, minimise
from pipeline.transfer.probe.linear import Probe
from pipeline.transfer.probe.losses import OneVsRest, Softmax

# Below this many products a step (N * D * classes) one thread: a second can save 3 ms a step, and where the
# other core is busy, waiting for it cost 20 to 80 times the step (measured, OpenBLAS on two cores).
_SMALL = 25_000_000
STRIDE, ROUGH = 10, 1e-2
"""From one lambda to the next on the way to a much weaker one, and how near the minimum is enough there."""
MOST = 40
"""Strides."""


class Problem:
    """F for one set of pictures, to be minimised at one lambda after the other.

    All changes of coordinates leave the problem as it is:
    - centring: b takes up W @ mean, and b is free. Features after a ReLU and pooling are all positive; left
      in, their common mean is one direction of huge curvature (3 to 4 times the iterations, measured).
    - one scale for all features, so that the pictures lie about 1 from their mean: W * scale with lambda /
      scale^2 is the same penalty. Not one scale per feature, which would change it.
    - a rotation onto the pictures' principal axes: ||W|| stays, and the Hessian comes near its diagonal,
      which L-BFGS starts from. Where N < D the axes span the pictures alone, and the penalised W has no part
      outside (representer theorem).

    Products with the features are float32 where they take time, all else is float64. That is enough, for
    errors of p - y are relative to themselves: the gradient is wrong by about 1e-5 of the penalty's, and F so
    by 1e-10.
    """

    def __init__(
        self, features: np.ndarray, targets: np.ndarray, classes: int, device: str | torch.device = "cpu"
    ):
        self.multilabel = targets.ndim == 2
        inputs = torch.from_numpy(np.array(features, np.float64)).to(device)  # (N, D)
        small = inputs.numel() * classes < _SMALL
        self._small = small and inputs.device.type == "cpu"
        with self._threads():
            self.mean = inputs.mean(0)
            inputs = inputs - self.mean
            # 1 where all pictures have the same features: then there is nothing to scale.
            self.scale = float(inputs.norm()) / len(inputs) ** 0.5 or 1.0
            inputs /= self.scale
            inputs, self.axes = _rotated(inputs)
        ones = torch.ones_like(inputs[:, :1])
        given = torch.from_numpy(np.array(targets)).to(inputs.device)
        loss = OneVsRest(given.double()) if self.multilabel else Softmax(given.long())
        inputs = torch.cat([inputs, ones], 1)
        self.penalised = Penalised(loss, inputs if small else inputs.float())
        self._classes, self._memory = classes, Memory(self.penalised.inputs.dtype)
        self._path: list[tuple[float, Point]] = []  # the last solutions, by log lambda

    def solve(self, lam: float, tolerance: float, limit: int) -> tuple[Probe, bool, int]:
        """The optimum at lambda, whether the solver got there, and in how many steps.

        It starts from the solutions at the lambdas before; that changes the time and not the optimum.
        """
        if not 0 < lam < np.inf:
            raise UserError(f"lambda={lam:g}: must be above 0 and finite")
        scaled = lam / self.scale**2
        with self._threads():
            # A weak penalty is reached over stronger ones: from nothing it takes thousands of steps.
            last = float(np.exp(self._path[-1][0])) if self._path else max(scaled, len(self.penalised.inputs))
            between = [last / STRIDE**number for number in range(MOST)]
            before = sum(self._solved(each, ROUGH, limit)[2] for each in between if each > STRIDE * scaled)
            at, gap, steps = self._solved(scaled, tolerance, limit)
            return self._probe(at.weight), gap < max(tolerance, 1e-6), before + steps

    def _solved(self, lam: float, tolerance: float, limit: int) -> tuple[Point, float, int]:
        self._memory.penalised(lam - self.penalised.lam)
        self.penalised.lam = lam
        start = min(self._guesses(lam), key=self.penalised.value)
        found = minimise(self.penalised, start, self._memory, tolerance, limit)
        self._path = [*self._path[-2:], (float(np.log(lam)), found[0])]
        return found

    def _guesses(self, lam: float) -> Iterator[Point]:
        """Where the optimum may be: polynomials in log lambda through the last one, two and three of them."""
        if not self._path:
            shape = (self._classes, self.penalised.inputs.shape[1])
            weight = torch.zeros(shape, dtype=torch.float64, device=self.mean.device)
            yield Point(weight, torch.zeros_like(weight[:, :1]).T.repeat(len(self.penalised.inputs), 1))
        for count in range(1, len(self._path) + 1):
            known = self._path[-count:]
            shares = _lagrange([place for place, _ in known], float(np.log(lam)))
            if shares is not None:
                yield Point(
                    sum(share * point.weight for share, (_, point) in zip(shares, known, strict=True)),
                    sum(share * point.logits for share, (_, point) in zip(shares, known, strict=True)),
                )

    def _probe(self, weight: Tensor) -> Probe:
        """Back to the features' own coordinates."""
        weight, bias = weight[:, :-1], weight[:, -1]
        weight = weight @ self.axes.T / self.scale
        if not self.multilabel:
            weight = weight - weight.mean(0)
        bias = bias - weight @ self.mean
        if not self.multilabel:
            bias = bias - bias.mean()
        return Probe(weight.cpu().numpy(), bias.cpu().numpy())

    @contextmanager
    def _threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(1 if self._small else before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _rotated(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) -> (N, d) on their principal axes (D, d), d = min(N, D)."""
    if len(inputs) < inputs.shape[1]:
        basis, triangle = torch.linalg.qr(inputs.T)  # (D, N), (N, N)
        inputs, axes = _rotated(triangle.T.contiguous())
        return inputs, basis @ axes
    _, axes = torch.linalg.eigh(inputs.T @ inputs)
    return inputs @ axes, axes


def _lagrange(places: list[float], at: float) -> list[float] | None:
    """The weights of values at ``places`` in the polynomial through them; none if two places are one."""
    if len(set(places)) < len(places):
        return None
    return [
        float(np.prod([(at - other) / (place - other) for other in places if other != place]))
        for place in places
    ]
