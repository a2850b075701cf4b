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
    :returns: for each class its name, pictures, how many of them were called right, recall with a 95 %
        interval (Wilson 1927), and the classes its pictures are most often taken for, most frequent first.
    """
    shown = predictions >= 0
    predictions, labels = predictions[shown], labels[shown]
    pictures = np.bincount(labels, minlength=len(classes))  # (K,)
    right = np.bincount(labels[predictions == labels], minlength=len(classes))
    missed = np.flatnonzero(right < pictures)
    order = missed[np.argsort(right[missed] / pictures[missed], kind="stable")]
    return [
        {
            "class": classes[each],
            "pictures": int(pictures[each]),
            "right": int(right[each]),
            **_recall(int(right[each]), int(pictures[each])),
            "taken_for": _taken_for(predictions[labels == each], each, classes),
        }
        for each in order[:most]
    ]


def _recall(right: int, pictures: int) -> dict[str, float]:
    """Wilson 1927, "Probable inference, the law of succession, and statistical inference": an interval of a
    share that holds for few pictures and for shares of 0 and 1 too."""
    z, share = 1.959964, right / pictures
    middle = (share + z**2 / (2 * pictures)) / (1 + z**2 / pictures)
    half = z / (1 + z**2 / pictures) * math.sqrt(share * (1 - share) / pictures + (z / (2 * pictures)) ** 2)
    return {"recall": share, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def _taken_for(said: np.ndarray, true: int, classes: list[str]) -> list[dict]:
    """:param said: (n,) predictions for the pictures of class ``true``."""
    counts = np.bincount(said, minlength=len(classes))
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
