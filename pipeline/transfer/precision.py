"""Average precision of one class's scores: VOC 2007's 11 points of recall, and the whole curve of VOC 2010.

Pictures are taken by falling score; after each, precision is the share of shown ones among those taken,
recall the share taken among those shown. What is hard to tell (target 0) takes no part, as in the development
kit's VOCevalcls.m. Pictures of equal score are taken together, so that the order of the file decides nothing
(the kit's stable sort lets it). Recall is compared with k / 10 in whole numbers: in floats 3 of 10 may be
below 0.3.
"""

from collections.abc import Callable

import numpy as np

Area = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From pictures shown, and all pictures, among those taken, (R, P) whole numbers rising along P, to (R,)."""


def eleven_points(shown: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Mean over recalls 0, 0.1 ... 1 of the best precision at that recall or more (Everingham 2010)."""
    best = _envelope(shown, taken)  # (R, P)
    points = np.arange(11)
    # The first place whose recall reaches k / 10; the last one's is 1.
    reached = 10 * shown[:, None, :] >= points[:, None] * shown[:, None, -1:]  # (R, 11, P)
    return np.take_along_axis(best, reached.argmax(axis=2), axis=1).mean(axis=1)


def all_points(shown: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Area below the best precision at each recall or more (VOC kits from 2010 on; VISSL)."""
    gained = np.diff(shown, axis=1, prepend=0)  # (R, P)
    return (gained * _envelope(shown, taken)).sum(axis=1) / shown[:, -1]


def average_precision(targets: np.ndarray, scores: np.ndarray, weights: np.ndarray, area: Area) -> np.ndarray:
    """(R,) float64, for R ways to weigh the same pictures; NaN where no shown picture has weight.

    :param targets: (N,) of 1 shown, -1 not shown, 0 takes no part. :param scores: (N,) floats.
    :param weights: (R, N) whole numbers: how often each picture is there, as a bootstrap draws them.
    """
    counts = np.flatnonzero(targets)
    order = counts[np.argsort(-scores[counts], kind="stable")]
    shown = targets[order] > 0
    if not shown.any():
        return np.full(len(weights), np.nan)
    falling = -scores[order]
    # Precision is best where a shown picture has just come, with all others of its score.
    ends = np.unique(np.searchsorted(falling, falling[shown], side="right")) - 1  # (P,)
    drawn = weights[:, order]  # (R, M)
    taken, hits = np.cumsum(drawn, axis=1)[:, ends], np.cumsum(drawn * shown, axis=1)[:, ends]
    with np.errstate(invalid="ignore"):
        found = area(hits, taken)
    return np.where(hits[:, -1] > 0, found, np.nan)


def average_precisions(
    targets: np.ndarray, scores: np.ndarray, weights: np.ndarray, area: Area
) -> np.ndarray:
    """``average_precision`` of each class: targets, scores (N, C) -> (R, C)."""
    each = zip(targets.T, scores.T, strict=True)
    return np.stack([average_precision(*columns, weights, area) for columns in each], axis=1)


def _envelope(shown: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """(R, P): the best precision at this place or a later one."""
    precision = shown / np.maximum(taken, 1)
    return np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
