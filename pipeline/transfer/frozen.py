"""A task's pictures as the frozen network sees them, and the classifiers that are asked of these features."""

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax

from pipeline.config import Pictures, TransferConfig
from pipeline.data.index import Split
from pipeline.data.loader import Loader
from pipeline.train.ranks import Ranks
from pipeline.transfer.backbone import LAST, Backbone
from pipeline.transfer.features import at_depths
from pipeline.transfer.metrics import METRICS
from pipeline.transfer.probe import few_shots, neighbours, probe
from pipeline.transfer.task import Task

Found = tuple[np.ndarray, dict, np.ndarray | None]
"""Answers to the test pictures, (N,) int64 predictions, or (N, C) float32 scores where there may be several
labels; what was chosen without them, for the result's row; and predictions' confidences (N,) float32."""


@dataclass(frozen=True)
class Seen:
    """:ivar used: rows of ``task.learned`` that are learned from, chosen on or tested on under some seed,
    ascending. :ivar learned: their features, (U, D) float32. :ivar pool: of the task's pool, (P, D) float32.
    :ivar device: where classifiers are fitted and neighbours are sought.
    """

    task: Task
    used: np.ndarray
    learned: np.ndarray
    pool: np.ndarray
    device: torch.device

    def at(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), D) of rows of ``task.learned``."""
        return self.learned[np.searchsorted(self.used, rows)]

    def tested(self, number: int) -> np.ndarray:
        """(N, D) of what the task's seed ``number`` is tested on."""
        return self.pool[self.task.draws[number].tested]


def see(
    backbone: Backbone,
    config: TransferConfig,
    ranks: Ranks,
    task: Task,
    pictures: Pictures,
    depths: Sequence[str] = (LAST,),
) -> dict[str, Seen]:
    """By depth; all ranks compute what is not in the cache, in one pass for all depths."""
    used = np.unique(np.concatenate([each.rows for each in task.draws]))
    if task.pool is task.learned:  # every picture is some seed's training or test
        used = np.arange(len(task.learned))

    def features(split: Split, title: str) -> dict[str, np.ndarray]:
        loader = Loader(split, pictures, config.loading, ranks.device, channels_last=True)
        batch = min(config.batch, -(-len(split) // ranks.world))
        folder = Path(config.runs) / "features"
        title = f"{task.dataset.name} {title}"
        return at_depths(backbone, loader, batch, folder, ranks, title, depths)

    learned = features(task.learned.take(used), "training features")
    pool = learned if task.pool is task.learned else features(task.pool, "test features")
    return {depth: Seen(task, used, learned[depth], pool[depth], ranks.device) for depth in depths}


def probed(seen: Seen, number: int, search: str, title: str) -> Found:
    """Logistic regression, its λ chosen on validation, for the task's seed ``number``.

    :param title: of warnings, which are told in a line each.
    """
    task = seen.task
    splits = [np.searchsorted(seen.used, rows) for rows in task.draws[number].choosing]
    classes, labels = len(task.learned.classes), task.labels(task.learned)[seen.used]
    with warnings.catch_warnings(record=True) as caught:
        how = {"classes": classes, "by": _choosing(task), "search": search, "device": seen.device}
        found, choice = probe(np.asarray(seen.learned), labels, *splits, **how)
    for warning in caught:
        print(f"{title}: {warning.message}", file=sys.stderr, flush=True)
    chosen = {"lambda": choice.lam, "val_score": choice.val_score, "at_edge": choice.at_edge}
    chosen |= {"unconverged": choice.unconverged, "path": choice.path, "by": task.dataset.choose_by}
    logits = found.logits(seen.tested(number))
    if task.multilabel:
        return logits.astype(np.float32), chosen, None
    return logits.argmax(axis=1), chosen, softmax(logits, axis=1).max(axis=1).astype(np.float32)


def nearest(seen: Seen, number: int, ks: Sequence[int]) -> Found:
    """k nearest neighbours; of the best k on validation the greatest, then all training pictures vote.

    Votes are no probabilities, so where the protocol chooses by cross-entropy, k is chosen by top-1.
    """
    task, drawn = seen.task, seen.task.draws[number]
    classes, labels = len(task.learned.classes), task.labels(task.learned)
    by = task.metric if task.multilabel or task.dataset.choose_by == "metric" else METRICS["top1"]

    def asked(known: np.ndarray, pictures: np.ndarray, k: int) -> np.ndarray:
        how = {"classes": classes, "k": k, "device": seen.device}
        votes = neighbours(seen.at(known), labels[known], pictures, **how)
        return votes if task.multilabel else votes.argmax(axis=1)

    val = seen.at(drawn.chosen_on)
    path = [(k, by(labels[drawn.chosen_on], asked(drawn.fit, val, k), classes)) for k in sorted(ks)]
    k, score = max(path, key=lambda point: (point[1], point[0]))
    chosen = {"k": k, "val_score": score, "by": by.name, "path": path}
    return asked(drawn.rows, seen.tested(number), k), chosen, None


def few(seen: Seen, number: int, shots: int, seed: int) -> Found:
    """A probe of ``shots`` training pictures a class of the task's seed ``number``, drawn by ``seed``."""
    rows, classes = seen.task.draws[number].rows, len(seen.task.learned.classes)
    labels = seen.task.labels(seen.task.learned)[rows]
    how = {"classes": classes, "seeds": [seed], "shots": [shots], "device": seen.device}
    ((_, _, answers),) = few_shots(seen.at(rows), labels, seen.tested(number), **how)
    return answers, {}, None


def _choosing(task: Task) -> str | Callable[[np.ndarray, np.ndarray], float]:
    """What the probe compares on validation: top1, loss, or the task's metric of logits and labels."""
    if task.dataset.choose_by != "metric":
        return task.dataset.choose_by
    classes = len(task.learned.classes)
    if task.multilabel:
        return lambda logits, targets: task.metric(targets, logits, classes)
    return lambda logits, labels: task.metric(labels, logits.argmax(axis=1), classes)
