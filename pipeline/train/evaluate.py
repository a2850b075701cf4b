"""Evaluation over all ranks: every picture counted exactly once, whatever the number of ranks."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipeline.data.batches import Fault, evaluation_rows
from pipeline.data.loader import Loader
from pipeline.progress import say, track
from pipeline.train.engine import autocast
from pipeline.train.loss import losses
from pipeline.train.meter import NAMED
from pipeline.train.ranks import Ranks


@dataclass(frozen=True)
class Evaluation:
    """The same on every rank."""

    loss: float
    """Mean over the split's pictures, as in training (``pipeline.train.loss``)."""
    top1: float
    """Share of the pictures whose top answer is right: one of those shown, where there are several labels."""
    predictions: np.ndarray
    """(N,) int64: the top answer for every row of the split; -1 for one that could not be shown."""
    faults: list[Fault]
    """Pictures that could not be shown; they count in neither loss nor top-1."""
    scores: np.ndarray | None = None
    """(N, C) float32 logits, where a picture may have several labels; 0 for one that could not be shown."""
    confidence: np.ndarray | None = None
    """(N,) float32: where a picture has one label, the softmax of the top answer; 0 for one not shown."""
    before: np.ndarray | None = None
    """(N,) int64: where a picture has one label, how many classes the network puts before it: below 5, top-5
    is right. 0 for one not shown."""


def evaluate(
    model: nn.Module, loader: Loader, batch: int, ranks: Ranks, dtype: torch.dtype, title: str = "evaluate"
) -> Evaluation:
    """Loss, top-1 and predictions of a model on the loader's split.

    :param batch: pictures per forward pass of a rank.
    :raises Preempted: on all ranks, when any of them was asked to stop meanwhile.
    """
    n = len(loader.split)
    batches = loader.evaluation(evaluation_rows(n, batch, ranks.rank, ranks.world), batch)
    seen = torch.zeros(n, dtype=torch.int64)
    predictions = torch.zeros(n, dtype=torch.int64)
    several = loader.split.multilabel
    told = torch.zeros(n, len(loader.split.classes)) if several else torch.zeros(n)  # scores or confidence
    before = torch.zeros(n, dtype=torch.int64)
    # Each picture's own: summed in the order of rows, they do not round by who evaluated which.
    loss = torch.zeros(n, dtype=torch.float64)
    faults: list[Fault] = []
    was_training = model.training
    model.eval()
    ranks.at(title)
    with torch.inference_mode():
        for each in track(batches, title, -(-n // (batch * ranks.world)), "batches", ranks.first):
            with autocast(dtype, ranks.device):
                logits = model(each.images).float()  # (b, classes)
            counts = each.weight.cpu() > 0
            rows = torch.from_numpy(each.rows)[counts]
            predictions[rows] = logits.argmax(dim=1).cpu()[counts]
            told[rows] = (logits if several else logits.softmax(dim=1).amax(dim=1)).cpu()[counts]
            if not several:
                before[rows] = _before(logits, each.labels).cpu()[counts]
            seen[rows] += 1
            loss[rows] = losses(logits, each.labels).double().cpu()[counts]
            faults += each.faults
            ranks.at("agreeing")  # who waits here must not look like the rank that it waits for
            ranks.stop_if_asked(f"in {title}")  # all ranks have equally many batches
            ranks.at(title)
    model.train(was_training)
    ranks.at("agreeing")
    # Each rank filled its own rows; the others' are zero, so a sum puts them together.
    for tensor in (seen, predictions, before, loss, told):
        ranks.sum(tensor)
    shown = seen.numpy() == 1
    faults = _missing(faults, ~shown, ranks)
    ranks.at(title)
    top1 = _right(predictions.numpy()[shown], loader.split.labels[shown]).mean()
    predictions[~torch.from_numpy(shown)] = -1
    found = float(loss.numpy()[shown].mean()), float(top1), predictions.numpy(), faults
    if several:
        return Evaluation(*found, scores=told.numpy())
    return Evaluation(*found, confidence=told.numpy(), before=before.numpy())


def _before(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(b,) int64: classes that stand before the label's; of equal logits the first, as for argmax.

    :param logits: (b, C). :param labels: (b,).
    """
    own = logits.gather(1, labels[:, None])  # (b, 1)
    first = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]  # (b, C)
    # Not ">": nothing compares with NaN, and a label would stand before it.
    return torch.where(first, ~(logits < own), ~(logits <= own)).sum(dim=1)


def _right(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) bool, as ``loss.right``; labels: (N,), or (N, C) of 1, 0 and -1."""
    if labels.ndim == 1:
        return predictions == labels
    return labels[np.arange(len(labels)), predictions] > 0


def _missing(mine: list[Fault], missing: np.ndarray, ranks: Ranks) -> list[Fault]:
    """Why each missing picture is missing, (N,) bool; told by the first rank."""
    known = {fault.row: fault for part in ranks.gather(mine) for fault in part}
    found = [known.get(row) for row in np.flatnonzero(missing)]
    assert None not in found, "a picture was evaluated twice or never"
    if ranks.first:
        for fault in found[:NAMED]:
            say(f"{fault.path}: {fault.reason}; it is left out of the evaluation")
    return found
