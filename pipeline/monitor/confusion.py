"""The classes that a network misses most often, and what it takes them for: confusion.json."""

import json
import math
from pathlib import Path

import numpy as np

from pipeline.files import write_whole

WORST, OTHERS = 10, 3
"""Classes told, and for each of them the classes it is most often taken for."""


def worst_classes(
    predictions: np.ndarray, labels: np.ndarray, classes: list[str], most: int = WORST
) -> list[dict]:
    """Up to ``most`` classes with the lowest recall, lowest first; a class without a miss is none of them.

    :param predictions: (N,) int64; -1 for a picture that was not shown, which counts nowhere.
    :param labels: (N,) int64.
    :returns: as of ``worst_of``.
    """
    shown, k = predictions >= 0, len(classes)
    cells = labels[shown].astype(np.int64) * k + predictions[shown]
    return worst_of(np.bincount(cells, minlength=k * k).reshape(k, k), classes, most)


def worst_of(confusion: np.ndarray, classes: list[str], most: int = WORST, tests: int = 1) -> list[dict]:
    """The same of a confusion matrix (K, K) of pictures, rows the true classes.

    :param tests: how many tests it is the sum of. They may have shared their pictures, so that intervals
        are as wide as of one.
    :returns: for each class its name, pictures, how many of them were called right, recall with a 95 %
        interval (Wilson 1927), and the classes its pictures are most often taken for, most frequent first.
    """
    pictures, right = confusion.sum(axis=1), confusion.diagonal()  # (K,)
    missed = np.flatnonzero(right < pictures)
    order = missed[np.argsort(right[missed] / pictures[missed], kind="stable")]
    return [
        {
            "class": classes[each],
            "pictures": int(pictures[each]),
            "right": int(right[each]),
            **_recall(right[each] / tests, pictures[each] / tests),
            "taken_for": _taken_for(confusion[each], each, classes),
        }
        for each in order[:most]
    ]


def _recall(right: float, pictures: float) -> dict[str, float]:
    """Wilson 1927, "Probable inference, the law of succession, and statistical inference": an interval of a
    share that holds for few pictures and for shares of 0 and 1 too."""
    z, share = 1.959964, float(right / pictures)
    middle = (share + z**2 / (2 * pictures)) / (1 + z**2 / pictures)
    half = z / (1 + z**2 / pictures) * math.sqrt(share * (1 - share) / pictures + (z / (2 * pictures)) ** 2)
    return {"recall": share, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def _taken_for(said: np.ndarray, true: int, classes: list[str]) -> list[dict]:
    """:param said: (K,) how many pictures of class ``true`` were called each class."""
    counts = said.copy()
    counts[true] = 0
    order = np.argsort(-counts, kind="stable")[:OTHERS]
    return [{"class": classes[each], "pictures": int(counts[each])} for each in order if counts[each]]


def keep_confusion(
    file: Path, step: int, split: str, predictions: np.ndarray, labels: np.ndarray, classes: list[str]
) -> None:
    """Writes the split's worst classes as JSON; arguments as of ``worst_classes``."""
    told = {
        "step": step,
        "split": split,
        "pictures": int((predictions >= 0).sum()),
        "classes": len(classes),
        "worst": worst_classes(predictions, labels, classes),
    }
    write_whole(file, (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode())
