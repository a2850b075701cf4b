"""Learning curves and the transfer table as a chart. Every function draws one figure for one look."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.config.protocol import MULTILABEL
from pipeline.figures.style import MARKERS, MODE_NAMES, Look, new_figure, shorten, spread, styled, title
from pipeline.report.inputs import MODES, Run
from pipeline.report.tables import metric, percent

MOST_POINTS = 1_200
"""Points of a raw line; of more, every bin's least and greatest stay."""
STEPS = [1, 2, 5, 10]
"""Between ticks, times a power of ten."""


def learning_curves(run: Run, look: Look) -> Figure | None:
    """Loss over top-1 over the learning rate, one epoch axis; what was not logged is left out.

    :returns: none if nothing was logged.
    """
    wanted = [("loss", "Loss"), ("top1", "Top-1, %"), ("lr", "Learning rate")]
    lines = {key: _logged(run, key) for key, _ in wanted}
    panels = [(key, name) for key, name in wanted if lines[key]]
    if not panels:
        return None
    heights = [0.5 if key == "lr" else 1.85 for key, _ in panels]
    with styled(look):
        height = sum(heights) + 0.42 * len(heights) + 0.4
        figure = new_figure(look.width, height)
        grid = figure.subplots(
            len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
        )
        for axes, (key, name) in zip(grid[:, 0], panels, strict=True):
            title(axes, name, look)
            if key == "lr":
                _rate(axes, *lines[key]["train"], look)
            else:
                _curves(axes, lines[key], key, look)
        last = grid[-1, 0]
        last.set_xlabel("epoch")
        last.set_xlim(0, max([1e-9, *(epochs[-1] for key in lines for epochs, _ in lines[key].values())]))
        last.xaxis.set_major_locator(MaxNLocator(5 if look.narrow else 10, steps=STEPS))
        left, right = (0.42, 0.72) if look.narrow else (0.5, 0.95)
        figure.subplots_adjust(
            left / look.width, 0.44 / height, 1 - right / look.width, 1 - 0.32 / height, hspace=0.36
        )
    return figure


def _logged(run: Run, key: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By split, epochs and values (N,) of what was logged; the learning rate has no split but train."""
    splits = ("train",) if key == "lr" else ("train", "val", "test")
    lines = {split: run.column(split, key) for split in splits}
    return {split: line for split, line in lines.items() if len(line[0])}


def _curves(axes: Axes, lines: dict[str, tuple[np.ndarray, np.ndarray]], key: str, look: Look) -> None:
    """Train raw and smoothed, the other splits as measured; names and last values at the line ends."""
    scale, ends, tops = 100 if key == "top1" else 1, [], []
    for split, (epochs, values) in lines.items():
        colour, values = getattr(look.theme, split), scale * values
        marker = 0
        if split == "train":
            axes.plot(*thinned(epochs, values), color=colour, alpha=0.3, linewidth=0.6)
            raw, values = values, smoothed(values)
        else:
            raw = values
            marker = {1: 5, **dict.fromkeys(range(2, 61), 3)}.get(len(values), 0)
        axes.plot(epochs, values, color=colour, linewidth=1.6, marker="o", markersize=marker)
        # A last point on the frame is shown whole.
        axes.plot(epochs[-1:], values[-1:], "o", color=colour, markersize=marker, clip_on=False)
        ends.append((split, values[-1], colour))
        # One spike does not flatten the rest.
        tops += [np.quantile(raw, 0.995), values[-1]]
    top = max(1.06 * max(tops), 1e-6)
    axes.set_ylim(0, min(top, 100) if key == "top1" else top)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    label_ends(axes, ends, "{:.1f}" if key == "top1" else "{:.2f}", 0.1 * axes.get_ylim()[1])


def label_ends(axes: Axes, ends: list[tuple[str, float, str]], form: str, gap: float) -> None:
    places = spread([value for _, value, _ in ends], gap)
    for (name, value, colour), place in zip(ends, places, strict=True):
        axes.annotate(
            f"{name} {form.format(value)}",
            (1, place),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=colour,
            weight="bold",
            fontsize=8.5,
            annotation_clip=False,
        )


def _rate(axes: Axes, epochs: np.ndarray, rate: np.ndarray, look: Look) -> None:
    axes.fill_between(epochs, rate, color=look.theme.muted, alpha=0.25, linewidth=0)
    axes.plot(epochs, rate, color=look.theme.muted, linewidth=1)
    top = float(rate.max()) or 1.0
    axes.set_ylim(0, top * 1.05)
    axes.set_yticks([0, top], ["0", f"{top:.2g}"])


def smoothed(values: np.ndarray) -> np.ndarray:
    """Centred moving average over a fortieth of the points (N,); at the ends over those that exist."""
    window = max(1, len(values) // 40) | 1
    ones = np.ones(min(window, len(values)))
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def thinned(epochs: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most about ``MOST_POINTS`` points with every peak kept: each bin's least and greatest, in order."""
    if len(values) <= MOST_POINTS:
        return epochs, values
    bins = np.array_split(np.arange(len(values)), MOST_POINTS // 2)
    keep = sorted({int(part[pick(values[part])]) for part in bins for pick in (np.argmin, np.argmax)})
    return epochs[keep], values[keep]


def transfer_chart(transfers: list[dict[str, Any]], look: Look) -> Figure | None:
    """Each dataset's modes as dots with 95 % whiskers, single seeds as small points, chance as a line.

    :returns: none without results.
    """
    groups = [(transfer, [m for m in MODES if m in transfer["summary"]]) for transfer in transfers]
    groups = [(transfer, modes) for transfer, modes in groups if modes]
    if not groups:
        return None
    lanes = sum(len(modes) + 1.35 for _, modes in groups)
    inch = 0.27
    with styled(look):
        height = lanes * inch + 0.55
        figure = new_figure(look.width, height)
        left, right = (0.98, 0.56) if look.narrow else (1.25, 1.7)  # for "100.0  [100.0, 100.0]"
        axes = figure.add_axes(
            (
                left / look.width,
                0.5 / height,
                1 - (left + right) / look.width,
                lanes * inch / height,
            )
        )
        axes.grid(axis="x")
        axes.grid(False, axis="y")
        place = 0.5
        for transfer, modes in groups:
            _group(axes, transfer, modes, place, look)
            place += len(modes) + 1.35
        axes.set_ylim(lanes, 0)
        axes.set_yticks([])
        axes.set_xlim(*_span(groups))
        axes.xaxis.set_major_locator(MaxNLocator(5 if look.narrow else 9, steps=STEPS))
        names = {metric(transfer) for transfer, _ in groups}
        axes.set_xlabel(
            f"{names.pop()} on the test set, %" if len(names) == 1 else "score on the test set, %"
        )
    return figure


def _span(groups: list[tuple[dict[str, Any], list[str]]]) -> tuple[float, float]:
    """Percent from below the least to above the greatest thing drawn."""
    shown = []
    for transfer, modes in groups:
        shown += [] if (chance := _chance(transfer)) is None else [chance]
        shown += [transfer["summary"][mode][key] for mode in modes for key in ("low", "high")]
        shown += [result["value"] for result in transfer["results"]]
    low, high = 100 * min(shown), 100 * max(shown)
    pad = 0.05 * max(high - low, 1.0)
    return max(low - pad, 0.0) if low >= 0 else low - pad, min(high + pad, 101.0)


def _chance(transfer: dict[str, Any]) -> float | None:
    """What guessing scores; none where it is not one of as many as there are classes: an average precision by
    chance depends on how many pictures show a class."""
    if any(result.get("metric") in MULTILABEL for result in transfer["results"]):
        return None
    return 1 / max(len(transfer["classes"]), 1)


def _group(axes: Axes, transfer: dict[str, Any], modes: list[str], top: float, look: Look) -> None:
    """One dataset: its name, then a lane for each mode downwards from ``top``, and the chance line."""
    theme = look.theme
    margin = {"xycoords": ("figure fraction", "data"), "va": "center", "annotation_clip": False}
    # Over the grid lines, which run behind the name.
    cover = {"facecolor": theme.ground, "linewidth": 0, "pad": 1.5}
    name = axes.annotate(
        shorten(transfer["dataset"], 34), (0, top), color=theme.ink, weight="bold", parse_math=False,
        bbox=cover, **margin,
    )  # fmt: skip
    if (chance := _chance(transfer)) is not None:
        axes.annotate(
            f"╎ chance {percent(chance)}", (1, 0.5), (7, 0), xycoords=name, textcoords="offset points",
            va="center", color=theme.muted, fontsize=8, bbox=cover, annotation_clip=False,
        )  # fmt: skip
        ends = [top + 0.5, top + len(modes) + 0.45]
        axes.plot([100 * chance] * 2, ends, color=theme.muted, linewidth=1, linestyle=(0, (3, 2)))
    for lane, mode in enumerate(modes, 1):
        y, colour = top + lane, getattr(theme, mode)
        figures = transfer["summary"][mode]
        value, low, high = (100 * figures[key] for key in ("value", "low", "high"))
        axes.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
        seeds = [100 * result["value"] for result in transfer["results"] if result["mode"] == mode]
        axes.plot(seeds, [y + 0.32] * len(seeds), "o", color=colour, markersize=2.5, alpha=0.75, mew=0)
        axes.plot([value], [y], MARKERS[mode], color=colour, markersize=5.5)
        axes.annotate(MODE_NAMES[mode], (0, y), color=colour, **margin)
        text = percent(figures["value"])
        interval = f"  [{percent(figures['low'])}, {percent(figures['high'])}]"
        axes.annotate(
            text if look.narrow else text + interval, (1, y), (8, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", color=colour, weight="bold", annotation_clip=False,
        )  # fmt: skip
