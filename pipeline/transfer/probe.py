"""The frozen probe: multinomial logistic regression on features, its penalty chosen on validation pictures.

The lineage's protocol (Kornblith et al. 2019; SimCLR, arXiv 2002.05709, App. B.8; its code is
google-research's linear_eval.py): over the pictures' features x_i and classes y_i, minimise

    F(W, b) = sum_i cross_entropy(W x_i + b, y_i) + lambda * ||W||^2          (a sum; b is not penalised)

for 45 values of lambda from 1e-6 to 1e5, take the best on validation, refit on training and validation,
test once. scikit-learn minimises C * sum_i cross_entropy + ||W||^2 / 2, so C = 1 / (2 lambda). Grids are
not comparable between papers without this: DINOv2's runs over C, ssl-transfer's has C = 1 / lambda.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController

from pipeline.config import UserError

LAMBDAS = np.logspace(-6, 5, 45)  # a step of 10 ** 0.25
MAX_ITERATIONS = 1000  # for one lambda, linear_eval.py's limit
# Rows turned into logits at once, so that float64 copies of the features stay small.
_ROWS = 8192
# Below this many products a step (N * D * classes) one thread: a second can save 3 ms a step, and where the
# other core is busy, waiting for it cost 20 to 80 times the step (measured, OpenBLAS on two cores).
_SMALL = 25_000_000


@dataclass(frozen=True)
class Probe:
    """A linear classifier. weight: (classes, D), bias: (classes,); float64, summing to 0 over the classes."""

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, D) features of any float type -> (N, classes) float64."""
        assert features.ndim == 2, f"features are {features.shape}, want (N, D)"
        out = np.empty((len(features), len(self.bias)))
        for start in range(0, len(features), _ROWS):
            rows = slice(start, start + _ROWS)
            out[rows] = features[rows].astype(np.float64) @ self.weight.T + self.bias
        return out

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(N, D) -> (N,) int64 classes."""
        return self.logits(features).argmax(axis=1)


@dataclass(frozen=True)
class Choice:
    """What the search over lambda found.

    path: (lambda, validation top-1, validation cross-entropy per picture) for every lambda, ascending.
    at_edge: the best lambda is the grid's smallest or largest, so a better one may lie outside.
    unconverged: the lambdas where the solver ended, by its limit or by rounding, before F was within 1e-6
    of its minimum for certain; their scores are of where it stood.
    """

    lam: float
    val_accuracy: float
    path: list[tuple[float, float, float]]
    at_edge: bool
    unconverged: list[float]


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    lam: float,
    classes: int,
    max_iterations: int = MAX_ITERATIONS,
) -> Probe:
    """The minimum of F (see above) at one lambda.

    features: (N, D) floats; labels: (N,) integers in 0..classes-1, each class at least once. UserError for a
    class without a picture, features that are not finite, lambda <= 0. Warns (ConvergenceWarning) when it
    stopped before the optimum was certain.
    """
    found, converged = _Problem(features, labels, classes, max_iterations).solve(lam)
    if not converged:
        _warn_unconverged(lam, max_iterations)
    return found


def choose(
    features: np.ndarray,
    labels: np.ndarray,
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    lambdas: Sequence[float] | np.ndarray = LAMBDAS,
    *,
    classes: int,
    by: Literal["top1", "loss"] = "top1",
    max_iterations: int = MAX_ITERATIONS,
) -> Choice:
    """Fit on features[train_rows] at every lambda; the best on validation is chosen.

    By top-1, as the lineage, ties by lower cross-entropy; or by cross-entropy (`loss`), which still tells
    lambdas apart where validation is so small that a single picture is points of top-1.

    features: (N, D); labels: (N,); train_rows, val_rows: disjoint integer rows. Every class needs a
    training picture (UserError); validation may lack classes. Warns (UserWarning) when the best lambda is
    at the grid's edge, and (ConvergenceWarning) when its fit is in `unconverged`.
    """
    assert np.intersect1d(train_rows, val_rows).size == 0, "pictures both trained on and validated on"
    if len(val_rows) == 0:
        raise UserError("the probe has no validation picture to choose lambda on")
    if len(lambdas) == 0:
        raise UserError("the probe's list of lambdas is empty")
    problem = _Problem(features[train_rows], labels[train_rows], classes, max_iterations)
    val_features, val_labels = features[val_rows], labels[val_rows]
    _check(val_features, val_labels, classes)
    path, unconverged = [], []
    # From the strongest penalty to the weakest, each solution the next one's start. F is strictly convex
    # (but for a constant added to all biases), so the start changes the time taken and not the solution.
    for lam in sorted({float(lam) for lam in lambdas}, reverse=True):
        found, converged = problem.solve(lam)
        if not converged:
            unconverged.append(lam)
        path.append((lam, *_score(found.logits(val_features), val_labels)))
    first = (lambda point: point[1]) if by == "top1" else (lambda point: -point[2])
    lam, accuracy, _ = max(path, key=lambda point: (first(point), -point[2], point[0]))
    path.reverse()
    at_edge = len(path) > 1 and lam in (path[0][0], path[-1][0])
    if at_edge:
        warnings.warn(
            f"the best lambda, {lam:g}, is at the edge of the grid {path[0][0]:g}..{path[-1][0]:g}: widen it",
            stacklevel=2,
        )
    if lam in unconverged:
        _warn_unconverged(lam, max_iterations)
    return Choice(lam, accuracy, path, at_edge, unconverged[::-1])


def probe(
    features: np.ndarray,
    labels: np.ndarray,
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    lambdas: Sequence[float] | np.ndarray = LAMBDAS,
    *,
    classes: int,
    by: Literal["top1", "loss"] = "top1",
    max_iterations: int = MAX_ITERATIONS,
) -> tuple[Probe, Choice]:
    """The whole protocol but the test: choose lambda, then refit on training and validation rows together."""
    limits = {"classes": classes, "by": by, "max_iterations": max_iterations}
    choice = choose(features, labels, train_rows, val_rows, lambdas, **limits)
    rows = np.sort(np.concatenate([train_rows, val_rows]))
    return fit(features[rows], labels[rows], choice.lam, classes, max_iterations), choice


class _Problem:
    """F for one set of pictures, in coordinates where L-BFGS needs few steps.

    All three changes of coordinates leave the problem as it is:
    - centring: b takes up W @ mean, and b is free. Features after a ReLU and pooling are all positive; left
      in, their common mean is one direction of huge curvature (3 to 4 times the iterations, measured).
    - one scale for all features, so that the pictures lie about 1 from their mean: W * scale with lambda /
      scale^2 is the same penalty. Not one scale per feature, which would change it.
    - a rotation onto the pictures' span when N < D: the penalised W has no part outside it (representer
      theorem).

    Float64: the penalised optimum at small lambda lies where cross-entropies are 1e-6 and their gradients
    1e-12 of where they began; float32 stops long before.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, classes: int, max_iterations: int):
        _check(features, labels, classes)
        if classes < 2:
            raise UserError(f"classes={classes}: a probe needs at least 2")
        missing = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
        if missing.size:
            raise UserError(
                f"class {missing[0]} has no training picture; the probe needs one of each of {classes}"
            )
        self.labels = labels
        self.classes = classes
        inputs = features.astype(np.float64)  # (N, D)
        self.mean = inputs.mean(axis=0)  # (D,)
        inputs -= self.mean
        # 1 where all pictures have the same features: then there is nothing to scale.
        self.scale = float(np.linalg.norm(inputs)) / len(inputs) ** 0.5 or 1.0
        inputs /= self.scale
        self.basis = None
        if inputs.shape[0] < inputs.shape[1]:
            self.basis, triangle = np.linalg.qr(inputs.T)  # (D, N), (N, N)
            inputs = np.ascontiguousarray(triangle.T)
        self.inputs = inputs
        self.solver = LogisticRegression(solver="lbfgs", warm_start=True, max_iter=max_iterations)
        self.pools = ThreadpoolController()

    def solve(self, lam: float) -> tuple[Probe, bool]:
        """The optimum at lambda and whether the solver got there, starting from the last solution."""
        if not 0 < lam < np.inf:
            raise UserError(f"lambda={lam:g}: must be above 0 and finite")
        scaled = lam / self.scale**2
        # With two classes scikit-learn has one vector w where softmax has +w/2 and -w/2, whose ||W||^2 is
        # ||w||^2 / 2: half the penalty for the same lambda.
        inverse = 1 / (2 * scaled) if self.classes > 2 else 1 / scaled
        self.solver.set_params(C=inverse, tol=_tolerance(scaled, len(self.inputs)))
        threads = 1 if self.inputs.size * self.classes < _SMALL else None
        with warnings.catch_warnings(record=True) as caught, self.pools.limit(limits=threads):
            warnings.simplefilter("always")
            self.solver.fit(self.inputs, self.labels)
        for warning in caught:
            if not issubclass(warning.category, ConvergenceWarning):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        weight, bias = self.solver.coef_, self.solver.intercept_
        if self.classes == 2:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        # The solver also complains where rounding ends its line search; that is no fault at the optimum.
        stopped = any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        converged = not stopped or self._gap(weight, bias, scaled) < 1e-6
        return self._probe(weight, bias), converged

    def _gap(self, weight: np.ndarray, bias: np.ndarray, lam: float) -> float:
        """Relative bound on F above its minimum: ||gradient||^2 / (4 lambda F), by strong convexity in W."""
        rows = np.arange(len(self.labels))
        logits = self.inputs @ weight.T + bias  # (N, classes)
        total = logsumexp(logits, axis=1)  # (N,)
        error = np.exp(logits - total[:, None])
        error[rows, self.labels] -= 1
        value = np.sum(total - logits[rows, self.labels]) + lam * np.sum(weight**2)
        slope = error.T @ self.inputs + 2 * lam * weight  # (classes, D)
        return float((np.sum(slope**2) + np.sum(error.sum(axis=0) ** 2)) / (4 * lam * value))

    def _probe(self, weight: np.ndarray, bias: np.ndarray) -> Probe:
        """Back to the features' own coordinates."""
        if self.basis is not None:
            weight = weight @ self.basis.T  # (classes, D)
        weight = (weight - weight.mean(axis=0)) / self.scale
        bias = bias - weight @ self.mean
        return Probe(weight, bias - bias.mean())


def _tolerance(lam: float, pictures: int) -> float:
    """The largest entry of the gradient of F / N (scikit-learn's measure) at which to stop.

    In the penalty's terms, not absolute: a gradient g leaves F within ||g||^2 / (4 lambda) of its minimum.
    scikit-learn's own 1e-4 leaves every lambda below 1e-3 standing where the one before it ended; this left F
    within 1e-6 of its minimum, relative, at all 45 (60 to 1,000 pictures of 64 to 2,048 features).
    """
    return min(1e-7, 1e-3 * lam / pictures)


def _score(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """(top-1, mean cross-entropy) of (N, classes) logits."""
    loss = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]  # (N,)
    return float(np.mean(logits.argmax(axis=1) == labels)), float(loss.mean())


def _check(features: np.ndarray, labels: np.ndarray, classes: int) -> None:
    assert features.ndim == 2, f"features are {features.shape}, want (N, D)"
    assert labels.shape == (len(features),), f"{labels.shape} labels for {len(features)} pictures"
    assert np.issubdtype(labels.dtype, np.integer), f"labels must be integers, got {labels.dtype}"
    if not labels.size:
        raise UserError("the probe has no training picture")
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"label {labels[(labels < 0) | (labels >= classes)][0]} is outside 0..{classes - 1}")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise UserError(
            f"the features of row {np.flatnonzero(~finite)[0]} are not finite: is the checkpoint broken?"
        )


def _warn_unconverged(lam: float, limit: int) -> None:
    warnings.warn(
        f"the probe at lambda {lam:g} stopped short of a certain optimum (limit: {limit} iterations)",
        ConvergenceWarning,
        stacklevel=3,
    )
