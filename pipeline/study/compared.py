"""Members side by side: errors at the end beside parameters and multiply-adds."""

import torch

from pipeline.models import build, cost
from pipeline.study.page import Table
from pipeline.study.seeds import PERCENT, over_seeds
from pipeline.study.trained import Trained
from pipeline.train.weights import switches

CLASSES = 10
"""Of CIFAR-10."""


def costs(trained: Trained, member: str) -> dict[str, int]:
    """Parameters and multiply-adds of one picture, as it is tested."""
    config = trained.configs[member, trained.study.seeds[0]]
    with torch.device("meta"):
        model = build(config.model.name, CLASSES, **switches(config.model))
    return cost(model, config.data.pictures.evaluation_size)


def table(trained: Trained, more: dict[str, dict[str, str]], caption: str) -> Table:
    """:param more: further columns, by head and member."""
    rows = []
    for member in trained.study.members:
        errors = [over_seeds(trained.errors(member, split), PERCENT).told() for split in ("train", "val")]
        counted = costs(trained, member)
        size = [f"{counted['parameters']:,}", f"{counted['macs'] / 1e6:.2f}"]
        rows.append([member, *errors, *size, *(column.get(member, "–") for column in more.values())])
    head = ["net", "training error, %", "test error, %", "parameters", "multiply-adds, millions", *more]
    return Table("At the end", head, rows, caption)
