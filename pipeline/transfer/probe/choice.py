"""The protocol: fit at every lambda, choose on validation, refit on training and validation."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning

from pipeline.config import UserError
from pipeline.transfer.probe.checks import check, check_classes
from pipeline.transfer.probe.linear import Probe
from pipeline.transfer.probe.problem import Problem

LAMBDAS = np.logspace(-6, 5, 45)  # a step of 10 ** 0.25
COARSE = np.logspace(-6, 6, 7)
"""Where the cheaper search begins; linear_eval.py's DEFAULT_HPARAMS."""
HALVINGS = 4
MAX_ITERATIONS = 1000  # for one lambda, linear_eval.py's limit
TOLERANCE, EXACT = 1e-5, 1e-10
"""By which share F is above its minimum at most: on the path, and in what is kept, if rounding allows it."""

Score = Callable[[np.ndarray, np.ndarray], float]
"""(N, classes) logits, (N,) labels or (N, classes) targets -> the more the better."""
By = Literal["top1", "loss"] | Score
Point = tuple[float, float, float]
"""lambda, score on validation, cross-entropy per picture there."""
Rank = Callable[[Point], tuple[float, ...]]
"""The greatest is the best."""


@dataclass(frozen=True)
class Choice:
    """What the search over lambda found.

    path: a ``Point`` for every lambda, ascending. The score is top-1, or what the user gave to choose by;
    where several classes are shown and none was given, minus the cross-entropy.
    at_edge: the best lambda is the grid's smallest or largest, so a better one may lie outside.
    unconverged: the lambdas where the solver ended, by its limit or by rounding, before F was within
    ``TOLERANCE`` of its minimum for certain; their scores are of where it stood.
    """

    lam: float
    val_score: float
    path: list[Point]
    at_edge: bool
    unconverged: list[float]


def fit(
    features: np.ndarray,
    targets: np.ndarray,
    lam: float,
    classes: int,
    max_iterations: int = MAX_ITERATIONS,
    *,
    device: str | torch.device = "cpu",
) -> Probe:
    """The minimum of F (see the package) at one lambda.

    features: (N, D) floats; targets: (N,) integers in 0..classes-1, each class at least once, or (N, classes)
    of 1 shown, -1 not shown, 0 left out. UserError for a class without a picture, features that are not
    finite, lambda <= 0. Warns (ConvergenceWarning) when it stopped before the optimum was certain.
    """
    check(features, targets, classes)
    check_classes(targets, classes)
    found, converged, _ = Problem(features, targets, classes, device).solve(lam, EXACT, max_iterations)
    if not converged:
        _warn_unconverged(lam, max_iterations)
    return found


def choose(
    features: np.ndarray,
    targets: np.ndarray,
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    lambdas: Sequence[float] | np.ndarray = LAMBDAS,
    *,
    classes: int,
    by: By = "top1",
    search: Literal["full", "halving"] = "full",
    max_iterations: int = MAX_ITERATIONS,
    device: str | torch.device = "cpu",
) -> Choice:
    """Fit on features[train_rows] at every lambda; the best on validation is chosen.

    By top-1, as the lineage, ties by lower cross-entropy; or by cross-entropy (`loss`), which still tells
    lambdas apart where validation is so small that a single picture is points of top-1; or by a function.

    search: `full` tries all lambdas; `halving` is linear_eval.py's cheaper search: `COARSE` instead, then
    four times one left and one right of the best, at half the distance in log lambda, at most 15 in all.

    features: (N, D); targets: (N,) or (N, classes); train_rows, val_rows: disjoint integer rows. Every class
    needs a training picture (UserError); validation may lack classes. Warns (UserWarning) when the best
    lambda is at the grid's edge, and (ConvergenceWarning) when its fit is in `unconverged`.
    """
    assert np.intersect1d(train_rows, val_rows).size == 0, "pictures both trained on and validated on"
    if len(val_rows) == 0:
        raise UserError("the probe has no validation picture to choose lambda on")
    if len(lambdas) == 0:
        raise UserError("the probe's list of lambdas is empty")
    train, val = features[train_rows], features[val_rows]
    for some, rows in ((train, train_rows), (val, val_rows)):
        check(some, targets[rows], classes)
    check_classes(targets[train_rows], classes)
    problem = Problem(train, targets[train_rows], classes, device)
    unconverged: list[float] = []

    def tried(lam: float) -> Point:
        found, converged, _ = problem.solve(lam, TOLERANCE, max_iterations)
        if not converged:
            unconverged.append(lam)
        return lam, *_score(found.logits(val), targets[val_rows], by)

    rank = _by_loss if by == "loss" else _by_score
    grid = COARSE if search == "halving" else lambdas
    # From the strongest penalty to the weakest, each solution the next one's start. F is strictly convex
    # (but for a constant added to all biases), so the start changes the time taken and not the solution.
    path = [tried(lam) for lam in sorted({float(lam) for lam in grid}, reverse=True)]
    edges = {path[0][0], path[-1][0]}
    if search == "halving":
        path += _halving(max(path, key=rank), np.log10(path[0][0] / path[1][0]), tried, rank)
    lam, score, _ = max(path, key=rank)
    at_edge = len(path) > 1 and lam in edges
    if at_edge:
        warnings.warn(
            f"the best lambda, {lam:g}, is at the edge of the grid {min(edges):g}..{max(edges):g}: widen it",
            stacklevel=2,
        )
    if lam in unconverged:
        _warn_unconverged(lam, max_iterations)
    return Choice(lam, score, sorted(path), at_edge, sorted(unconverged))


def probe(
    features: np.ndarray,
    targets: np.ndarray,
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    lambdas: Sequence[float] | np.ndarray = LAMBDAS,
    *,
    classes: int,
    by: By = "top1",
    search: Literal["full", "halving"] = "full",
    max_iterations: int = MAX_ITERATIONS,
    device: str | torch.device = "cpu",
) -> tuple[Probe, Choice]:
    """The whole protocol but the test: choose lambda, then refit on training and validation rows together."""
    how = {"classes": classes, "max_iterations": max_iterations, "device": device}
    choice = choose(features, targets, train_rows, val_rows, lambdas, by=by, search=search, **how)
    rows = np.sort(np.concatenate([train_rows, val_rows]))
    return fit(features[rows], targets[rows], choice.lam, **how), choice


def _halving(best: Point, step: float, tried: Callable[[float], Point], rank: Rank) -> Iterator[Point]:
    """linear_eval.py's tune_l2_regularization: right is tried only where left was no better."""
    for _ in range(HALVINGS):
        step /= 2
        for side in (-1, 1):
            point = tried(best[0] * 10 ** (side * step))
            yield point
            if rank(point) > rank(best):
                best = point
                break


def _by_score(point: Point) -> tuple[float, ...]:
    """Then by cross-entropy, the lower the better; then the stronger penalty."""
    lam, score, loss = point
    return score, -loss, lam


def _by_loss(point: Point) -> tuple[float, ...]:
    """The lower the better; then the stronger penalty."""
    lam, _, loss = point
    return -loss, lam


def _score(logits: np.ndarray, targets: np.ndarray, by: By) -> tuple[float, float]:
    """(score, cross-entropy per picture) of (N, classes) logits."""
    if targets.ndim == 1:
        losses = logsumexp(logits, axis=1) - logits[np.arange(len(targets)), targets]  # (N,)
        top1 = float(np.mean(logits.argmax(axis=1) == targets))
    else:
        losses = (np.logaddexp(0, -targets * logits) * np.abs(targets)).sum(axis=1)
    loss = float(losses.mean())
    if callable(by):
        return float(by(logits, targets)), loss
    if by == "top1" and targets.ndim == 2:
        raise UserError("choose_by: top1 needs one class a picture; write loss, or a metric of several")
    return (top1 if targets.ndim == 1 else -loss), loss


def _warn_unconverged(lam: float, limit: int) -> None:
    warnings.warn(
        f"the probe at lambda {lam:g} stopped short of a certain optimum (limit: {limit} iterations)",
        ConvergenceWarning,
        stacklevel=3,
    )
