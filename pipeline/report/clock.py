"""Where the time of a step goes, over the run."""

from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.figures.style import Look, new_figure, spread, styled, title
from pipeline.report.inputs import Run
from pipeline.report.plots import STEPS

NAMES = {
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "communication": "communication",
    "data_wait": "wait for pictures",
    "loop": "the loop itself",
}
"""From the bottom up: work first, then what is lost."""
MOST_COLUMNS = 120
GAP = 11
"""Percent between two names at the right."""
READING = (
    "Mean over the ranks, without evaluating and saving; communication is what backward could not hide, and "
    "waiting for a slower rank. Against waiting for pictures help more cores and data.loading; against "
    "communication a larger train.batch, accumulation or a faster network."
)


def shares(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs (N,), shares of the time (N, 6) in the order of ``NAMES``, and the time that each is of (N,)."""
    keys = [key for key in NAMES if key != "loop"]
    wanted = ("epoch", "samples", "images_per_s", *keys)
    rows = [row for row in run.rows if row.get("split") == "train"]
    rows = [row for row in rows if all(isinstance(row.get(key), (int, float)) for key in wanted)]
    table = np.array([[row[key] for key in wanted] for row in rows], np.float64).reshape(-1, len(wanted))
    epochs, samples, rates, known = table[:, 0], table[:, 1], table[:, 2], table[:, 3:]
    seconds = np.diff(samples, prepend=0) / rates
    # A GPU's phases are timed on the GPU, and it may still be busy while its rank waits for pictures.
    known /= np.maximum(known.sum(1, keepdims=True), 1)
    return epochs, np.column_stack([known, 1 - known.sum(1)]), seconds


def means(run: Run) -> dict[str, float]:
    """The keys of ``NAMES`` with their shares of the run's time; empty if they were not logged."""
    _, parts, seconds = shares(run)
    if not len(seconds):
        return {}
    return dict(zip(NAMES, np.average(parts, axis=0, weights=seconds).tolist(), strict=True))


def clock_chart(run: Run, look: Look) -> Figure | None:
    """Shares of a step's time stacked over the epochs, each with its mean over the run.

    :returns: none if they were not logged.
    """
    epochs, parts, seconds = shares(run)
    if not len(epochs):
        return None
    over_run = means(run)
    epochs, parts = _columns(epochs, parts, seconds)
    tops = np.cumsum(parts, axis=1) * 100  # (N, 6)
    height = 2.35
    with styled(look):
        figure = new_figure(look.width, height)
        axes = figure.subplots()
        title(axes, "Share of a step's time, %", look)
        bottom, ends = np.zeros(len(epochs)), []
        for number, (key, colour) in enumerate(zip(NAMES, _colours(look), strict=True)):
            top = tops[:, number]
            axes.fill_between(
                epochs, bottom, top, facecolor=colour, edgecolor=look.theme.ground, linewidth=0.4
            )
            # Room is kept for the names above, so that the last stands no higher than the plot.
            place = min((bottom[-1] + top[-1]) / 2, 97 - GAP * (len(NAMES) - 1 - number))
            ends.append((f"{NAMES[key]} {_percent(over_run[key])} %", place, colour))
            bottom = top
        axes.set_xlim(0, epochs[-1])
        axes.set_ylim(0, 100)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5 if look.narrow else 10, steps=STEPS))
        places = spread([place for _, place, _ in ends], GAP)
        for (words, _, colour), place in zip(ends, places, strict=True):
            axes.annotate(
                words, (1, place), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                va="center", color=colour, weight="bold", fontsize=8.5, annotation_clip=False,
            )  # fmt: skip
        left, right = (0.42, 1.62) if look.narrow else (0.5, 1.7)
        figure.subplots_adjust(left / look.width, 0.44 / height, 1 - right / look.width, 1 - 0.32 / height)
    return figure


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.01 else f"{100 * share:.1f}"


def _colours(look: Look) -> list[Any]:
    theme = look.theme
    deep = LinearSegmentedColormap.from_list("deep", [theme.frozen, theme.ink])(0.45)
    return [theme.frozen, deep, theme.test, theme.val, theme.finetuned, theme.scratch]


def _columns(epochs: np.ndarray, parts: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most ``MOST_COLUMNS`` means over equally many rows, from epoch 0 on."""
    bins = np.array_split(np.arange(len(epochs)), min(len(epochs), MOST_COLUMNS))
    heights = [np.average(parts[each], axis=0, weights=seconds[each]) for each in bins]
    ends = [epochs[each[-1]] for each in bins]
    return np.array([0, *ends]), np.array([heights[0], *heights])
