"""What transfer adds to training from scratch: each dataset's paired differences with their intervals."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.figures.style import MODE_NAMES, Look, new_figure, shorten, styled
from pipeline.report.inputs import MODES
from pipeline.report.plots import STEPS
from pipeline.report.tables import interval, signed

LANE = 0.25
"""Inches for one mode's bar; a dataset's name takes one more, and a gap."""
READING = (
    "Differences are taken between runs of the same seed on the same test pictures, and the intervals are "
    "theirs: one that leaves out zero tells transfer and training from scratch apart."
)


def gain_chart(transfers: list[dict[str, Any]], look: Look) -> Figure | None:
    """A bar with its 95 % interval for each dataset and mode.

    :returns: none where nothing was trained from scratch to compare with.
    """
    groups = [(each, [mode for mode in MODES if mode in each["improvement"]]) for each in transfers]
    groups = [(transfer, modes) for transfer, modes in groups if modes]
    if not groups:
        return None
    lanes = sum(len(modes) + 1.4 for _, modes in groups)
    left, right = (0.98, 0.6) if look.narrow else (1.25, 1.6)
    height = lanes * LANE + 0.5
    with styled(look):
        figure = new_figure(look.width, height)
        place = (left, 0.46, look.width - left - right, lanes * LANE)
        axes = figure.add_axes(np.divide(place, (look.width, height, look.width, height)))
        axes.grid(axis="x")
        axes.grid(False, axis="y")
        # Over the grid lines, which run behind the names.
        margin = {"xycoords": ("figure fraction", "data"), "va": "center", "annotation_clip": False}
        cover = {"facecolor": look.theme.ground, "linewidth": 0, "pad": 1.5}
        y = 0.5
        for transfer, modes in groups:
            name = shorten(transfer["dataset"], 34)
            axes.annotate(
                name, (0, y), color=look.theme.ink, weight="bold", parse_math=False, bbox=cover, **margin
            )
            for mode in modes:
                y += 1
                _bar(axes, transfer["improvement"][mode], mode, y, look)
                axes.annotate(MODE_NAMES[mode], (0, y), color=getattr(look.theme, mode), **margin)
            y += 1.4
        axes.axvline(0, color=look.theme.ink, linewidth=1)
        axes.set_ylim(lanes, 0)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(5 if look.narrow else 9, steps=STEPS))
        axes.set_xlabel("above training from scratch, points")
    return figure


def _bar(axes, gain: dict[str, float], mode: str, y: float, look: Look) -> None:
    colour = getattr(look.theme, mode)
    value, low, high = (100 * gain[key] for key in ("value", "low", "high"))
    axes.barh(y, value, 0.62, color=colour, alpha=0.45, linewidth=0)
    axes.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    axes.annotate(
        signed(gain["value"]) + ("" if look.narrow else f"  {interval(gain)}"),
        (1, y), (8, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
        color=colour, weight="bold", annotation_clip=False,
    )  # fmt: skip
