"""Figures of a Jacobian J = ∂f/∂x (out, in) that is never written down: products with vectors alone."""

import numpy as np
import torch
from torch import Tensor

from pipeline.study.chain import Function


class Linear:
    """f at the point x; J's size is that of f(x), flat, by that of x.

    Jᵀ u is a backward pass. It is linear in u, and J v is its own backward pass: so one graph gives both, on
    every device and for every module that can be differentiated twice.
    """

    def __init__(self, f: Function, x: Tensor):
        self.x = x.detach().requires_grad_()
        with torch.enable_grad():
            self._y = f(self.x)
            self._u = torch.zeros_like(self._y, requires_grad=True)
            (self._pulled,) = torch.autograd.grad(self._y, self.x, self._u, create_graph=True)

    def times(self, v: Tensor) -> Tensor:
        """J v, in the form of f(x)."""
        return torch.autograd.grad(self._pulled, self._u, v, retain_graph=True)[0]

    def transposed(self, u: Tensor) -> Tensor:
        """Jᵀ u, in the form of x."""
        return torch.autograd.grad(self._y, self.x, u, retain_graph=True)[0]

    def largest(self, iterations: int, generator: torch.Generator) -> float:
        """The largest singular value, from below: power iteration on JᵀJ (Golub & Van Loan 2013, section
        8.2.1)."""
        v, norm = _normal(self.x, generator), 0.0
        for _ in range(iterations):
            size = torch.linalg.vector_norm(v)
            if not 0 < size < torch.inf:
                return float(norm)
            u = self.times(v / size)
            norm = torch.linalg.vector_norm(u)
            v = self.transposed(u)
        return float(norm)

    def typical(self, probes: int, generator: torch.Generator) -> float:
        """√(Σ σ² / in), by how much J stretches a random vector: ‖J v‖ / ‖v‖ in the square mean, v Gaussian.

        As E ‖J v‖² = ‖J‖²_F (Hutchinson 1990), with a relative error of about 1 / √(2 · probes · rank).
        """
        squares = [self.times(_normal(self.x, generator)).double().square().sum() for _ in range(probes)]
        return float((torch.stack(squares).mean() / self.x.numel()).sqrt())


def eigenvalues(f: Function, x: Tensor) -> np.ndarray:
    """All eigenvalues, complex, of the square Jacobian at x, which is written down: (D,) for D numbers."""
    exact = torch.func.jacrev(lambda flat: f(flat.view(x.shape)).flatten(), chunk_size=256)(x.flatten())
    return np.linalg.eigvals(exact.detach().double().cpu().numpy())


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)
