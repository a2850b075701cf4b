"""One look for all plots: two themes, two widths, the colours of the modes, and how a figure becomes a PNG.

Colours are those of Okabe and Ito (2008), told apart with every common colour blindness; each mode also
has its own marker, so that no meaning hangs on colour alone.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

DPI = 160
PNG_LIMIT = 150_000
"""Bytes that a plot may weigh, so that it can be committed to a repository."""

MODE_NAMES = {"scratch": "from scratch", "frozen": "frozen", "finetuned": "finetuned"}
MARKERS = {"scratch": "s", "frozen": "o", "finetuned": "D"}
SYMBOLS = {"scratch": "■", "frozen": "●", "finetuned": "◆"}


@dataclass(frozen=True)
class Theme:
    ground: str
    ink: str
    muted: str
    grid: str
    scratch: str
    frozen: str
    finetuned: str
    wrong: str
    train: str
    val: str
    test: str


LIGHT = Theme(
    ground="#ffffff",
    ink="#1b1f24",
    muted="#646b74",
    grid="#e4e7eb",
    scratch="#7a828c",
    frozen="#0072b2",
    finetuned="#c77700",
    wrong="#b3261e",
    train="#7a828c",
    val="#a5508c",
    test="#00855f",
)
DARK = Theme(
    ground="#14171a",
    ink="#e8eaed",
    muted="#9aa1ab",
    grid="#2b3036",
    scratch="#a3abb5",
    frozen="#56b4e9",
    finetuned="#f0a93b",
    wrong="#ff8a80",
    train="#a3abb5",
    val="#dd94c4",
    test="#35c69b",
)


@dataclass(frozen=True)
class Look:
    """For whom a plot is drawn: light or dark, a desktop's width or a phone's."""

    theme: Theme = LIGHT
    narrow: bool = False

    @property
    def width(self) -> float:
        """Inches."""
        return 4.0 if self.narrow else 8.8


LOOKS = {
    "light": Look(),
    "dark": Look(DARK),
    "light_narrow": Look(narrow=True),
    "dark_narrow": Look(DARK, narrow=True),
}


@contextmanager
def styled(look: Look) -> Iterator[None]:
    """Matplotlib's settings for the figures made inside; put back afterwards."""
    theme = look.theme
    # Matplotlib brings DejaVu Sans; it also has the symbols that the others lack.
    wanted = ("Arial", "Liberation Sans", "DejaVu Sans")
    here = {font.name for font in font_manager.fontManager.ttflist}
    settings = {
        "font.family": [name for name in wanted if name in here],
        "font.size": 9,
        "text.color": theme.ink,
        "axes.labelcolor": theme.muted,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": theme.ground,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": theme.grid,
        "grid.linewidth": 0.7,
        "xtick.color": theme.grid,
        "ytick.color": theme.grid,
        "xtick.labelcolor": theme.muted,
        "ytick.labelcolor": theme.muted,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "ytick.major.size": 0,
        "figure.facecolor": theme.ground,
        "figure.dpi": DPI,
    }
    with matplotlib.rc_context(settings):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches that no global state knows of."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def title(axes: Axes, text: str, look: Look, mode: str = "") -> None:
    """A short line above a plot's left end: its quantity, instead of a rotated label, or its mode."""
    axes.annotate(
        text,
        (0, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        color=getattr(look.theme, mode or "ink"),
        weight="bold",
        parse_math=False,
    )


def png(figure: Figure, limit: int = 60_000) -> bytes:
    """The figure as PNG in full colour; where that passes ``limit`` bytes, with a palette of 256 colours."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    full = _encoded(picture)
    if len(full) <= limit:
        return full
    return _encoded(picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))


def _encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=7)
    return buffer.getvalue()


def shorten(text: str, length: int) -> str:
    """At most ``length`` characters, the end replaced by an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def spread(wanted: list[float], gap: float) -> list[float]:
    """Positions as near to ``wanted`` as stay ``gap`` apart, in the same order: labels that don't overlap."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    blocks: list[list[float]] = []  # [sum of (wanted - offset in block), count]
    for index in order:
        blocks.append([wanted[index], 1])
        while len(blocks) > 1 and _start(blocks[-2]) + blocks[-2][1] * gap > _start(blocks[-1]):
            total, count = blocks.pop()
            blocks[-1][0] += total - count * blocks[-1][1] * gap
            blocks[-1][1] += count
    places = [_start(block) + step * gap for block in blocks for step in range(int(block[1]))]
    return [places[order.index(index)] for index in range(len(wanted))]


def _start(block: list[float]) -> float:
    return block[0] / block[1]
