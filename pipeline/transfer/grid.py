"""Learning rate and weight decay, chosen on validation pictures by training with each pair of a grid."""

from collections.abc import Callable

import numpy as np

from pipeline.config import Grid, Optimizer, UserError
from pipeline.train.evaluate import Evaluation
from pipeline.train.optim import peak_rate
from pipeline.transfer.task import Task


def choose(
    grid: Grid, optim: Optimizer, batch: int, tried: Callable[[Optimizer], float | None], key: str
) -> tuple[Optimizer, dict]:
    """The pair with the highest score; of equal ones the lowest learning rate's, then the strongest decay's.

    :param optim: what is not in the grid. :param batch: to which a rate of ``lr_batch`` pictures is scaled.
    :param tried: trains, and scores on validation; none = diverged. :param key: of the rates in the config.
    :return: the optimizer, and for the result's row its decay and score, all pairs (lr, weight decay, score),
        and whether the best learning rate, or decay, is the grid's least or greatest of several.
    :raises UserError: every pair diverged.
    """
    path = []
    for lr in sorted(grid.lr):
        for decay in sorted(grid.decay, reverse=True):
            how = optim.model_copy(update={"lr": lr})
            how = how.model_copy(update={"weight_decay": decay / peak_rate(how, batch)})
            path.append((how, decay, tried(how)))
    ended = [point for point in path if point[2] is not None]
    if not ended:
        raise UserError(f"{key}: training diverged with all of {grid.lr}; give lower ones")
    best, decay, value = max(ended, key=lambda point: point[2])  # the first of equal ones
    at_edge = _at_edge(best.lr, grid.lr) or _at_edge(decay, grid.decay)
    told = {"weight_decay": best.weight_decay, "val_score": value, "at_edge": at_edge}
    return best, told | {"path": [(each.lr, each.weight_decay, found) for each, _, found in path]}


def score(task: Task, labels: np.ndarray, seen: Evaluation) -> float | None:
    """Of validation pictures, the higher the better, by what the protocol chooses by; none if not finite."""
    if not np.isfinite(seen.loss):
        return None
    if task.dataset.choose_by == "metric":
        answers = seen.scores if task.multilabel else seen.predictions
        return task.metric(labels, answers, len(task.learned.classes))
    return seen.top1 if task.dataset.choose_by == "top1" else -seen.loss


def _at_edge(value: float, values: list[float]) -> bool:
    ends = {min(values), max(values)} - {0}  # below no decay at all there is nothing
    return len(set(values)) > 1 and value in ends
