"""A dataset's result: one row a mode and seed, the modes over seeds, and what transfer adds."""

import numpy as np

from pipeline.transfer.answers import Answers
from pipeline.transfer.metrics import confusion
from pipeline.transfer.modes import Stage
from pipeline.transfer.scored import Scored
from pipeline.transfer.statistics import interval
from pipeline.transfer.task import Task


def summarise(stage: Stage, task: Task, runs: dict[str, list[Answers]]) -> dict:
    """A dataset's result: one row per mode and seed, the modes over seeds, and what transfer adds."""
    classes = len(task.learned.classes)
    scored = {mode: Scored(task.metric, each, classes, len(task.pool)) for mode, each in runs.items()}
    rows = [
        _row(stage, task, mode, number) | _scores(scored[mode], number)
        for mode in runs
        for number in range(len(runs[mode]))
    ]
    gains = {}
    if "scratch" in scored:
        others = [mode for mode in scored if mode != "scratch"]
        gains = {mode: vars(scored[mode].above(scored["scratch"])) for mode in others}
    return {
        "dataset": task.dataset.name,
        "curve": task.dataset.curve,
        "per_class": task.dataset.per_class,
        "classes": task.learned.classes,
        "protocol": task.about,
        "checkpoint": str(stage.backbone.path),
        "results": rows,
        "summary": {mode: vars(each.estimate()) for mode, each in scored.items()},
        "improvement": gains,
    }


def _row(stage: Stage, task: Task, mode: str, number: int) -> dict:
    return {
        "dataset": task.dataset.name,
        "protocol": task.dataset.protocol,
        "mode": mode,
        "metric": task.dataset.metric,
        "n_train": len(task.draws[number].rows),
        "n_test": len(task.draws[number].tested),
        "seed": stage.config.seed + number,
        "checkpoint": str(stage.backbone.path),
    }


def _scores(scored: Scored, number: int) -> dict:
    """A run's value with its interval, and what stands behind it, class by class."""
    run = scored.runs[number]
    low, high = interval(scored.scores[number])
    found = {"value": float(scored.values[number]), "low": low, "high": high, "chosen": run.chosen}
    if not scored.metric.multilabel:
        return found | {"confusion": confusion(run.labels, run.answers, scored.classes).tolist()}
    by_class = scored.metric.by_class(run.labels, run.answers)
    return found | {"average_precision": [None if np.isnan(each) else float(each) for each in by_class]}
