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
"""From pictures shown, and all pictures, among those taken, (P, R) whole numbers rising along P, to (R,)."""


def eleven_points(shown: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Mean over recalls 0, 0.1 ... 1 of the best precision at that recall or more (Everingham 2010)."""
    best, total = _envelope(shown, taken), shown[-1]
    # The first place whose recall reaches k / 10; the last one's is 1.
    first = [(10 * shown < point * total).sum(axis=0) for point in range(11)]  # (R,) each
    return np.mean([best[places, np.arange(len(total))] for places in first], axis=0)


def all_points(shown: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Area below the best precision at each recall or more (VOC kits from 2010 on; VISSL)."""
    gained = np.diff(shown, axis=0, prepend=0)  # (P, R)
    return (gained * _envelope(shown, taken)).sum(axis=0) / shown[-1]


def average_precision(targets: np.ndarray, scores: np.ndarray, weights: np.ndarray, area: Area) -> np.ndarray:
    """(R,) float64, for R ways to weigh the same pictures; NaN where no shown picture has weight.

    :param targets: (N,) of 1 shown, -1 not shown, 0 takes no part. :param scores: (N,) floats.
    :param weights: (N, R) whole numbers: how often each picture is there, as a bootstrap draws them.
    """
    counts = np.flatnonzero(targets)
    order = counts[np.argsort(-scores[counts], kind="stable")]
    shown = np.flatnonzero(targets[order] > 0)
    if not shown.size:
        return np.full(weights.shape[1], np.nan)
    falling = -scores[order]
    # Precision is best where a shown picture has just come, with all others of its score.
    ends, groups = np.unique(np.searchsorted(falling, falling[shown], side="right"), return_index=True)
    starts = np.concatenate([[0], ends[:-1]])
    taken = np.add.reduceat(weights[order[: ends[-1]]], starts, axis=0).cumsum(axis=0)  # (P, R)
    hits = np.add.reduceat(weights[order[shown]], groups, axis=0).cumsum(axis=0)
    with np.errstate(invalid="ignore"):
        found = area(hits, taken)
    return np.where(hits[-1] > 0, found, np.nan)


def average_precisions(
    targets: np.ndarray, scores: np.ndarray, weights: np.ndarray, area: Area
) -> np.ndarray:
    """``average_precision`` of each class: targets, scores (N, C), weights (R, N) -> (R, C)."""
    weights = np.ascontiguousarray(weights.T)  # a picture's row is then one piece of memory
    each = zip(targets.T, scores.T, strict=True)
    return np.stack([average_precision(*columns, weights, area) for columns in each], axis=1)


def _envelope(shown: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """(P, R): the best precision at this place or a later one."""
    return np.maximum.accumulate((shown / np.maximum(taken, 1))[::-1])[::-1]
