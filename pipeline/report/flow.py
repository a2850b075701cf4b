"""Gradient flow by layer: norms, update ratios and signal to noise, from a run's first look to its last."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from pipeline.figures.style import Look, new_figure, styled, title
from pipeline.report.inputs import Run
from pipeline.report.tables import count

WINDOWS = 4
"""Parts of a run, after its first look, whose looks are put together."""
LISTS = ("norm", "update_ratio", "snr")
RULE = 1e-3
"""Of thumb for the update ratio: Stanford's CS231n course notes, "Neural Networks Part 3", under "Ratio of
weights:updates"."""
FLOOR = 0.01
"""Signal to noise up to here, or by chance below zero, is no height but a point in the panel's foot."""
FOOT = 0.12
"""Of a decade: height of one line's row in the foot."""
READING = (
    "Gradient norm: where it falls by orders of magnitude from the output to the input, gradients vanish, "
    "and the first layers hardly learn; where it rises so, they explode.",
    "Update / weight, the change of a layer's weights in one step relative to the weights: 1e-3 is a rule of "
    "thumb (Stanford's CS231n notes); far below, a layer stands still, far above, its steps are too long.",
    "Signal / noise of the gradient that a step applies: below 1 it says more about which pictures are in "
    "the batch than about the loss, and a larger batch gives a better step; points in the foot: no signal "
    "is seen, the estimate is 0.01 or less.",
)


@dataclass(frozen=True)
class Window:
    """Looks put together, (L,) each; NaN where nothing is known."""

    name: str
    norm: np.ndarray
    update_ratio: np.ndarray
    snr: np.ndarray


def parts(norm: Any, snr: Any) -> tuple[np.ndarray, np.ndarray]:
    """Signal |g|^2 and noise tr(S) / B of looks, which add up to the squared norm; these can be averaged."""
    norm, snr = np.asarray(norm, np.float64), np.asarray(snr, np.float64)
    noise = norm**2 / (1 + snr)
    return norm**2 - noise, noise


def windows(run: Run) -> tuple[list[str], list[Window]]:
    """Layers, and the first look alone, then up to ``WINDOWS`` equal parts of the others."""
    rows = _looks(run)
    if not rows:
        return [], []
    groups = [rows[:1], *np.array_split(np.array(rows[1:], object), min(WINDOWS, len(rows) - 1) or 1)]
    by_step = rows[-1]["epoch"] < 1
    lasts = [group[-1] for group in groups if len(group)]
    names = [f"to {last['step']}" if by_step else f"to {last['epoch']:.3g}" for last in lasts]
    names[0] = f"step {lasts[0]['step']}"
    if len(names) > 1 and not by_step:
        names[1] = names[1].replace("to", "to epoch")
    return rows[0]["layers"], [_window(name, group) for name, group in zip(names, groups, strict=False)]


def _looks(run: Run) -> list[dict[str, Any]]:
    rows = [row for row in run.rows if row.get("split") == "gradients"]
    rows = [row for row in rows if all(isinstance(row.get(key), list) for key in ("layers", *LISTS))]
    return [row for row in rows if {len(row[key]) for key in LISTS} == {len(rows[-1]["layers"])}]


def _window(name: str, rows: Any) -> Window:
    """Squares of norms are averaged, and with them signal and noise, whose ratio is then less noisy."""
    norm, ratio, snr = (np.array([row[key] for row in rows], np.float64) for key in LISTS)  # (looks, L)
    signal, noise = parts(norm, snr)
    return Window(name, np.sqrt(_mean(norm**2)), _mean(ratio), _ratio(_mean(signal), _mean(noise)))


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the looks (N, L) in which a value is known; NaN where it never is."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0).sum(0), known.sum(0))


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=np.asarray(b) > 0)


def noise_scale(run: Run) -> str | None:
    """The gradient noise scale in the run's last part, in a sentence; none where noise was not measured."""
    rows = [row for row in _looks(run) if row.get("total_snr") is not None]
    batch = (run.config.get("train") or {}).get("batch")
    rows = rows[-max(1, len(rows) // WINDOWS) :]
    if not rows or not batch:
        return None
    signal, noise = parts([row["total_norm"] for row in rows], [row["total_snr"] for row in rows])
    start = "Gradient noise scale (McCandlish et al. 2018) in the last part of the run: "
    if signal.mean() <= 0:
        return f"{start}too large to be told at a batch of {count(batch)}."
    scale = count(round(batch * float(noise.mean() / signal.mean())))
    return (
        f"{start}about {scale} pictures, the batch being {count(batch)}; well below that size a larger batch "
        "saves steps nearly in proportion, far above it hardly any."
    )


def flow_chart(run: Run, look: Look) -> Figure | None:
    """Three panels over the layers from input to output, a line for each window of the run.

    :returns: none if gradients were not looked at.
    """
    layers, lines = windows(run)
    wanted = [("norm", "Gradient norm"), ("update_ratio", "Update / weight"), ("snr", "Signal / noise")]
    panels = [(key, name) for key, name in wanted if any(_drawn(line, key) for line in lines)]
    if not panels:
        return None
    with styled(look):
        height = 1.5 * len(panels) + 0.36 * (len(panels) - 1) + 1.02
        figure = new_figure(look.width, height)
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        colours = _ramp(len(lines), look)
        for axes, (key, name) in zip(grid, panels, strict=True):
            title(axes, name, look)
            for line, colour in zip(lines, colours, strict=True):
                _line(axes, layers, getattr(line, key), colour, FLOOR if key == "snr" else 0.0)
            _scale(axes, key, look)
            if key == "snr":
                _foot(axes, lines, colours)
        _name_layers(grid, layers, look)
        _key(figure, [line.name for line in lines], colours, look)
        figure.subplots_adjust(
            0.5 / look.width, 0.44 / height, 1 - 0.1 / look.width, 1 - 0.58 / height, hspace=0.36 / 1.5
        )
    return figure


def _drawn(line: Window, key: str) -> bool:
    return bool(np.isfinite(getattr(line, key)).any())


def _ramp(number: int, look: Look) -> list[Any]:
    """From pale, the run's begin, to strong, its end."""
    theme = look.theme
    strong = LinearSegmentedColormap.from_list("strong", [theme.ground, theme.frozen, theme.ink])
    return [strong(place) for place in np.linspace(0.2, 0.95, number)] if number > 1 else [theme.frozen]


def _line(axes: Axes, layers: list[str], values: np.ndarray, colour: Any, floor: float) -> None:
    """A line along the network's trunk; shortcuts beside it are points of their own."""
    places = np.arange(len(layers))
    values = np.where(values > floor, values, np.nan)
    beside = np.array([_is_beside(layer) for layer in layers])
    axes.plot(places[~beside], values[~beside], "o-", color=colour, linewidth=1.5, markersize=2.2)
    axes.plot(places[beside], values[beside], "D", color=colour, markersize=2.8, fillstyle="none", mew=0.9)


def _is_beside(layer: str) -> bool:
    return "downsample" in layer.split(".")  # torchvision's name of a shortcut


def _scale(axes: Axes, key: str, look: Look) -> None:
    hints = {
        "norm": "falling towards the input: vanishing; rising: exploding",
        "update_ratio": "dashed: 1e-3, rule of thumb (CS231n)",
        "snr": "below 1, dashed: a step is mostly noise",
    }
    if not look.narrow:
        axes.annotate(
            hints[key], (1, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", ha="right",
            color=look.theme.muted, fontsize=8,
        )  # fmt: skip
    rule = {"update_ratio": RULE, "snr": 1.0}.get(key)
    if rule is not None:
        axes.axhline(rule, color=look.theme.muted, linewidth=1, linestyle=(0, (3, 2)), zorder=1)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if high > 100 * low else (1, 2, 5), numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(_number)


def _foot(axes: Axes, lines: list[Window], colours: list[Any]) -> None:
    """A row of points for each line below ``FLOOR``, where it has no signal."""
    for row, (line, colour) in enumerate(zip(lines, colours, strict=True), 1):
        unseen = np.flatnonzero(line.snr <= FLOOR)
        height = FLOOR * 10 ** (-FOOT * row)
        axes.plot(unseen, np.full(len(unseen), height), "o", color=colour, markersize=1.8)
    depth = FOOT * (len(lines) + 1)
    axes.set_ylim(FLOOR * 10**-depth, max(axes.get_ylim()[1], 2))
    decades = [FLOOR * 10**power for power in range(12) if FLOOR * 10**power < axes.get_ylim()[1]]
    axes.set_yticks(decades)
    axes.set_yticks([FLOOR * 10 ** (-depth / 2)], ["none"], minor=True)
    axes.tick_params(axis="y", which="minor", length=0)


def _number(value: float, _: int) -> str:
    """0.02, 1, 50, and 1e-4 where zeros would have to be counted."""
    return f"{value:g}" if 0.005 < value < 5000 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def _name_layers(grid: Any, layers: list[str], look: Look) -> None:
    """Stages by name, with a hairline between them."""
    starts, names, place = [], [], 0
    for name, group in groupby(layers, key=lambda layer: layer.split(".")[0]):
        starts.append(place)
        names.append(name)
        place += len(list(group))
    ends = [*starts[1:], place]
    for axes in grid:
        axes.set_xlim(-0.6, place - 0.4)
        axes.tick_params(axis="x", length=0)
        for start in starts[1:]:
            axes.axvline(start - 0.5, color=look.theme.grid, linewidth=0.7, zorder=0)
    middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    grid[-1].set_xticks(middles, names)
    beside = "; diamonds: shortcuts" if any(map(_is_beside, layers)) else ""
    grid[-1].set_xlabel(f"layer, from input to output{beside}")


def _key(figure: Figure, names: list[str], colours: list[Any], look: Look) -> None:
    marks = [Line2D([], [], color=colour, linewidth=2) for colour in colours]
    figure.legend(
        marks, names, loc="upper left", bbox_to_anchor=(0.43 / look.width, 1), ncols=len(names), fontsize=8,
        frameon=False, borderaxespad=0.6, borderpad=0, handlelength=1.1, handletextpad=0.5, columnspacing=1.2,
        labelcolor=look.theme.muted,
    )  # fmt: skip
