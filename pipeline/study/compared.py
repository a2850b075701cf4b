"""Members side by side: errors at the end beside parameters and multiply-adds; a lane of a plot for each."""

import numpy as np
import torch
from matplotlib.axes import Axes

from pipeline.data.index import open_index
from pipeline.models import build, cost
from pipeline.study.page import Table
from pipeline.study.seeds import PERCENT, Interval, over_seeds
from pipeline.study.trained import Trained
from pipeline.train.weights import switches


def costs(trained: Trained, member: str) -> dict[str, int]:
    """Parameters and multiply-adds of one picture, as it is tested."""
    config = trained.configs[member, trained.study.seeds[0]]
    classes = open_index(config.data.index).split(config.data.train, "data.train").classes
    with torch.device("meta"):
        model = build(config.model.name, len(classes), **switches(config.model))
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


def lane(
    axes: Axes,
    place: float,
    values: np.ndarray,
    found: Interval,
    colour: str,
    *,
    upright: bool = False,
    fill: str = "full",
) -> None:
    """A member at its place on one axis: the mean, the bar of its interval, and beside them the seeds.

    :param values: (S,), of which ``found`` is. :param upright: values go up, not to the right.
    """

    def draw(along: list[float], across: list[float], *style: str, **more) -> None:
        axes.plot(*((across, along) if upright else (along, across)), *style, color=colour, **more)

    if found.seeds > 1:
        draw([found.low, found.high], [place, place], linewidth=2)
    draw(list(values), [place + (0.12 if upright else 0.25)] * len(values), "o", markersize=2.5, alpha=0.7)
    draw([found.value], [place], "o", markersize=5.5, fillstyle=fill)
