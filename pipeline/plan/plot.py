"""A plan as a picture: hours by GPUs beside the ideal, and what a GPU's memory holds."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from pipeline.figures.style import LOOKS, PNG_LIMIT, Look, new_figure, png, styled, title
from pipeline.plan.memory import ENGINES, state
from pipeline.plan.scaling import Row, Setting
from pipeline.plan.table import engine_name
from pipeline.plan.words import three

LIGHT = LOOKS["light"]


def draw(setting: Setting, rows: Sequence[Row], look: Look = LIGHT) -> bytes:
    """A PNG."""
    with styled(look):
        figure = new_figure(look.width, 2.8)
        left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
        _hours(left, [row for row in rows if not row.problem], look)
        _memory(right, setting, look)
        figure.tight_layout()
        return png(figure, PNG_LIMIT)


def _hours(axes: Axes, rows: Sequence[Row], look: Look) -> None:
    title(axes, "Hours by GPUs", look)
    if not rows:
        return
    gpus = [row.gpus for row in rows]
    ideal = [rows[0].gpu_hours * rows[0].efficiency / row.gpus for row in rows]
    axes.plot(gpus, ideal, "--", color=look.theme.muted, linewidth=1, label="without any loss")
    axes.plot(gpus, [row.hours for row in rows], "o-", color=look.theme.frozen, markersize=4, label="model")
    for row in rows:
        place = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 7}
        axes.annotate(three(row.hours), (row.gpus, row.hours), color=look.theme.ink, **place)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(gpus, [f"{count:,}" for count in gpus])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(0.8, 2 * gpus[-1])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)


def _memory(axes: Axes, setting: Setting, look: Look) -> None:
    node = setting.cluster.gpus_per_node
    title(axes, f"State of a GPU of {node}, MB", look)
    theme = look.theme
    shades = {
        "weights": theme.frozen,
        "gradients": theme.finetuned,
        "optimizer": theme.test,
        "average": theme.val,
        "copy": theme.grid,
        "buckets": theme.muted,
    }
    places = range(len(ENGINES))
    held = [state(setting.network, setting.config, node, engine) for engine in ENGINES]
    left = [0.0] * len(held)
    for part, shade in shades.items():
        widths = [getattr(one, part) / 1e6 for one in held]
        if any(widths):
            axes.barh(places, widths, left=left, height=0.62, color=shade, label=part)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    axes.set_yticks(places, [engine_name(engine) for engine in ENGINES])
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.grid(False, axis="y")
    axes.set_xlim(0, 1.35 * max(left))
    axes.legend(frameon=False, fontsize=7, loc="lower right")
