"""What a prediction is worth: one function a metric, each in 0..1, found by name in METRICS."""

import difflib
from collections.abc import Callable

import numpy as np

from pipeline.config import UserError

Metric = Callable[[np.ndarray, np.ndarray, int], float]


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Count of pictures for every (true class, predicted class).

    labels, predictions: (N,) integers in 0..classes-1. Returns (classes, classes) int64; the row is the true
    class, so a row sums to that class's pictures and the whole to N.
    """
    _check(labels, predictions)
    assert labels.min() >= 0, "a label below 0"
    assert predictions.min() >= 0, "a prediction below 0"
    assert max(labels.max(), predictions.max()) < classes, f"a class beyond {classes - 1}"
    # int64 first: classes * label overflows a uint8 label.
    cells = labels.astype(np.int64) * classes + predictions  # (N,)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def top1(labels: np.ndarray, predictions: np.ndarray, classes: int | None = None) -> float:
    """Share of the pictures whose predicted class is the true one.

    labels, predictions: (N,) integers, N >= 1. `classes` is taken so that all metrics are called alike; it
    changes nothing here.
    """
    _check(labels, predictions)
    return float(np.mean(labels == predictions))


def mean_per_class(labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
    """Mean of the classes' own accuracies, so that a rare class counts as much as a common one.

    labels, predictions: (N,) integers in 0..classes-1, N >= 1. The mean runs over the classes that have a
    picture in `labels`: one without has no accuracy, and calling it 0 would punish the model for the test
    set. Equals top1 when the test set is balanced. The metric of Caltech-101 and Aircraft in the transfer
    literature (BYOL, arXiv 2006.07733, Table 10).
    """
    counts = confusion(labels, predictions, classes)  # (classes, classes)
    pictures = counts.sum(axis=1)  # (classes,)
    seen = pictures > 0
    return float(np.mean(counts.diagonal()[seen] / pictures[seen]))


METRICS: dict[str, Metric] = {"top1": top1, "mean_per_class": mean_per_class}


def metric(name: str) -> Metric:
    """The function (labels, predictions, classes) -> float of that name; UserError for an unknown one."""
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"metric={name!r} is unknown; {hint}known: {', '.join(METRICS)}")
    return METRICS[name]


def _check(labels: np.ndarray, predictions: np.ndarray) -> None:
    assert labels.ndim == 1, f"labels are {labels.shape}, want (N,)"
    assert labels.shape == predictions.shape, f"{labels.shape} labels, {predictions.shape} predictions"
    assert labels.size > 0, "no picture to score"
    for array in (labels, predictions):
        assert np.issubdtype(array.dtype, np.integer), f"classes must be integers, got {array.dtype}"
