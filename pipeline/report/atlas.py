"""The map of a dataset's features: test pictures as points, coloured by class."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.config import UserError
from pipeline.figures.style import Look, new_figure, shorten, styled

# Okabe and Ito 2008, without black; markers tell classes of the same colour apart.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
SHAPES = ("o", "^")
MOST = len(COLOURS) * len(SHAPES)
"""Classes with a colour of their own, those with most pictures; all others are gray."""


@dataclass(frozen=True)
class Atlas:
    places: np.ndarray  # (K, 2) float
    labels: np.ndarray  # (K,) int; -1 shows not just one class
    method: str


def read_atlas(file: Path, classes: int) -> Atlas | None:
    """None if there is no such file.

    :raises UserError: it is not as transfer writes it.
    """
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as held:
            found = Atlas(held["places"], held["labels"], str(held["method"]))
        number = len(found.labels)
        if found.places.shape != (number, 2) or not np.isfinite(found.places).all() or not number:
            raise ValueError("places: not two finite numbers a picture")
        if not (found.labels.min() >= -1 and found.labels.max() < classes):
            raise ValueError(f"labels: not all among the {classes} classes")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        told = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read as a map: {told}; run the transfer again") from None
    return found


def atlas_chart(atlas: Atlas, classes: list[Any], look: Look) -> Figure:
    """The points, and beside them (on a phone: below) which class is which."""
    lines = _legend(atlas, classes)
    width = look.width if look.narrow else 5.4
    tall = 3.5 if look.narrow else 4.4
    columns = 2 if look.narrow else 1
    below = 0.2 * -(-len(lines) // columns) + 0.1 if look.narrow else 0
    height = tall + below
    with styled(look):
        figure = new_figure(look.width, height)
        box = (0.05, below + 0.05, width - 0.1, tall - 0.1)
        axes = figure.add_axes(np.divide(box, (look.width, height, look.width, height)))
        for labels, style, _ in lines:
            shown = np.isin(atlas.labels, labels)
            axes.plot(*atlas.places[shown].T, linestyle="none", mew=0, **(style | _gray(style, look)))
        axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        beside = (0.05, 0, width - 0.1, below) if look.narrow else (width + 0.05, 0.1, 3.2, tall - 0.2)
        key = figure.add_axes(np.divide(beside, (look.width, height, look.width, height)))
        _name(key, lines, columns, beside[3], look)
    return figure


def _legend(atlas: Atlas, classes: list[Any]) -> list[tuple[list[int], dict[str, Any], str]]:
    """(labels, how they are drawn, name), gray ones first: they lie below."""
    held, counts = np.unique(atlas.labels[atlas.labels >= 0], return_counts=True)
    own = sorted(held[np.argsort(-counts, kind="stable")][:MOST].tolist())
    others = [label for label in held.tolist() if label not in own]
    lines: list[tuple[list[int], dict[str, Any], str]] = []
    if (atlas.labels == -1).any():
        lines.append(([-1], {"marker": ".", "markersize": 3.5}, "not just one class"))
    if others:
        lines.append((others, {"marker": ".", "markersize": 3.5}, f"{len(others)} other classes"))
    for number, label in enumerate(own):
        colour, shape = COLOURS[number % len(COLOURS)], SHAPES[number // len(COLOURS)]
        style = {"marker": shape, "markersize": 3.6, "color": colour, "alpha": 0.8}
        lines.append(([label], style, str(classes[label])))
    return lines


def _gray(style: dict[str, Any], look: Look) -> dict[str, Any]:
    return {} if "color" in style else {"color": look.theme.muted, "alpha": 0.5}


def _name(axes: Axes, lines: list, columns: int, height: float, look: Look) -> None:
    """The classes' names, own colours first."""
    lines = sorted(lines, key=lambda line: "color" not in line[1])
    down = -(-len(lines) // columns)
    axes.axis("off")
    axes.set(xlim=(0, columns), ylim=(max(down, height / 0.2), 0))
    for number, (_, style, name) in enumerate(lines):
        column, row = divmod(number, down)
        style = style | _gray(style, look) | {"markersize": 6, "alpha": 1.0}
        axes.plot(column + 0.03 * columns, row + 0.5, linestyle="none", mew=0, **style)
        axes.annotate(
            shorten(name, 24), (column + 0.03 * columns, row + 0.5), (8, 0), textcoords="offset points",
            va="center", color=look.theme.ink, fontsize=8, parse_math=False,
        )  # fmt: skip
