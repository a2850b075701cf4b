"""What answers are worth: one metric a name, each in 0..1, found in METRICS.

A metric is defined once, for any number of ways to weigh the test pictures: its value weighs each once, a
bootstrap as often as it drew it. Answers are predictions (N,) where a picture has one label, scores (N, C)
where it may have several.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.transfer.precision import Area, all_points, average_precisions, eleven_points

Weighted = Callable[[np.ndarray, np.ndarray, int, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """:ivar weighted: (labels, answers, classes, weights (R, N) whole numbers) -> (R,) float64.

    :ivar area: of a curve of precision: then labels are (N, C) of 1, 0 and -1 and answers scores, else both
        are classes, (N,).
    """

    name: str
    weighted: Weighted
    area: Area | None = None

    @property
    def multilabel(self) -> bool:
        return self.area is not None

    def __call__(self, labels: np.ndarray, answers: np.ndarray, classes: int) -> float:
        """Every picture counts once. N >= 1."""
        check = _check_scores if self.multilabel else _check
        check(labels, answers)
        return float(self.weighted(labels, answers, classes, _once(labels))[0])

    def by_class(self, targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """(C,) average precisions; NaN for a class that no picture shows."""
        return average_precisions(targets, scores, _once(targets), self.area)[0]


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


def _top1(labels: np.ndarray, predictions: np.ndarray, classes: int, weights: np.ndarray) -> np.ndarray:
    return weights @ (labels == predictions) / weights.sum(axis=1)


def _mean_per_class(
    labels: np.ndarray, predictions: np.ndarray, classes: int, weights: np.ndarray
) -> np.ndarray:
    pictures, hits = np.zeros((2, len(weights), classes))
    for name in np.unique(labels):
        rows = np.flatnonzero(labels == name)
        drawn = weights[:, rows]  # (R, the class's pictures)
        pictures[:, name], hits[:, name] = drawn.sum(axis=1), drawn @ (predictions[rows] == name)
    return (hits / np.maximum(pictures, 1)).sum(axis=1) / (pictures > 0).sum(axis=1)


def _mean_ap(
    targets: np.ndarray, scores: np.ndarray, classes: int, weights: np.ndarray, area: Area
) -> np.ndarray:
    return np.nanmean(average_precisions(targets, scores, weights, area), axis=1)


def _mean_precision(name: str, area: Area) -> Metric:
    return Metric(name, partial(_mean_ap, area=area), area)


def _once(labels: np.ndarray) -> np.ndarray:
    return np.ones((1, len(labels)), np.int64)


top1 = Metric("top1", _top1)
"""Share of the pictures whose predicted class is the true one."""
mean_per_class = Metric("mean_per_class", _mean_per_class)
"""Mean of the classes' own accuracies, so that a rare class counts as much as a common one. The mean runs
over the classes that have a picture: one without has no accuracy, and calling it 0 would punish the model for
the test set. Equals top1 when the test set is balanced. The metric of Caltech-101 and Aircraft (BYOL, arXiv
2006.07733, Table 10)."""
map_11point = _mean_precision("map_11point", eleven_points)
"""Mean over classes of VOC 2007's average precision (``pipeline.transfer.precision``)."""
map_all_points = _mean_precision("map_all_points", all_points)
"""Mean over classes of the area under the whole curve, as VOC has it from 2010 on."""

METRICS = {each.name: each for each in (top1, mean_per_class, map_11point, map_all_points)}


def _check(labels: np.ndarray, predictions: np.ndarray) -> None:
    assert labels.ndim == 1, f"labels are {labels.shape}, want (N,)"
    assert labels.shape == predictions.shape, f"{labels.shape} labels, {predictions.shape} predictions"
    assert labels.size > 0, "no picture to score"
    for array in (labels, predictions):
        assert np.issubdtype(array.dtype, np.integer), f"classes must be integers, got {array.dtype}"


def _check_scores(targets: np.ndarray, scores: np.ndarray) -> None:
    assert targets.ndim == 2, f"targets are {targets.shape}, want (N, C)"
    assert targets.shape == scores.shape, f"{targets.shape} targets, {scores.shape} scores"
    assert len(targets) > 0, "no picture to score"
    assert np.isin(targets, (-1, 0, 1)).all(), "a target that is not 1, 0 or -1"
    assert np.isfinite(scores).all(), "a score that is not finite"
