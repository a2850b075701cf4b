"""Sheets of sample pictures with their predictions, and confusion matrices."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from pipeline.figures.style import (
    DPI,
    LIGHT,
    MODE_NAMES,
    PNG_LIMIT,
    SYMBOLS,
    Look,
    new_figure,
    png,
    shorten,
    styled,
    title,
)
from pipeline.report.inputs import MODES, Samples

COLUMNS, TILE, GAP = 8, 160, 14  # pictures in a row; pixels of a picture's side; between pictures
LINE = 19  # pixels from one caption line to the next
EDGE = (228, 231, 235)
MOST_ROWS = 3
CORNER = 0.72
"""Inches for the words in a confusion matrix's corner: the least left margin."""
NUMBERED, NAMED = 12, 30
"""Classes up to which a confusion matrix has its numbers, and its classes' names."""


def evenly(samples: Samples, most: int) -> np.ndarray:
    """Up to ``most`` picture numbers (N,), evenly through the file: not chosen by whether they are right."""
    held = len(samples.labels)
    return np.linspace(0, held - 1, min(most, held)).round().astype(int)


def tile(picture: np.ndarray, side: int = TILE) -> np.ndarray:
    """(H, W, 3) as (side, side, 3) on white: small pictures by whole factors so that pixels stay sharp."""
    height, width = picture.shape[:2]
    factor = side // max(height, width)
    if factor >= 1:
        scaled = picture.repeat(factor, 0).repeat(factor, 1)
    else:
        size = [max(1, round(length * side / max(height, width))) for length in (width, height)]
        scaled = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = ((side - length) // 2 for length in scaled.shape[:2])
    square[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    # A hairline, or a bright sky has no edge.
    square[[0, -1]] = square[:, [0, -1]] = EDGE
    return square


def sheet(samples: Samples) -> bytes | None:
    """PNG of the pictures, the true name under each and, in red, every wrong prediction.

    As many whole rows, or pictures of a single row, as stay under ``PNG_LIMIT``.

    :returns: none without pictures or predictions.
    """
    if not len(samples.labels) or not samples.predictions:
        return None
    shown = MOST_ROWS * COLUMNS
    while True:
        drawn = png(_sheet(samples, evenly(samples, shown)), PNG_LIMIT)
        if len(drawn) <= PNG_LIMIT or shown == 1:
            return drawn
        shown = max(1, min(shown - 1, int(shown * PNG_LIMIT / len(drawn))))
        shown -= shown % COLUMNS if shown > COLUMNS else 0


def _sheet(samples: Samples, chosen: np.ndarray) -> Figure:
    """Laid out in pixels, so that no picture is resampled."""
    modes = [mode for mode in ("", *MODES) if mode in samples.predictions]
    step_x, step_y = TILE + GAP, TILE + GAP + LINE * (1 + len(modes)) + 4
    head = 0 if modes == [""] else 34
    columns = min(COLUMNS, len(chosen))
    size = columns * step_x - GAP, head + -(-len(chosen) // COLUMNS) * step_y - GAP + 6
    with styled(Look()):
        figure = new_figure(size[0] / DPI, size[1] / DPI)
        if head:
            _write(figure, size, 0, 5, _key(modes), size[0])
        for number, index in enumerate(chosen):
            x, y = number % COLUMNS * step_x, head + number // COLUMNS * step_y
            figure.figimage(tile(samples.pictures[index]), x, size[1] - y - TILE, origin="upper")
            for line, words in enumerate(_caption(samples, index, modes)):
                _write(figure, size, x, y + TILE + 7 + line * LINE, words, TILE)
    return figure


def _key(modes: list[str]) -> list[tuple[str, str]]:
    names = [(f"{SYMBOLS[mode]} {MODE_NAMES[mode]}    ", getattr(LIGHT, mode)) for mode in modes if mode]
    return [*names, ("✓ right    ", LIGHT.muted), ("✗ wrong, and what was said", LIGHT.wrong)]


def _caption(samples: Samples, index: int, modes: list[str]) -> list[list[tuple[str, str]]]:
    """Lines under a picture, each of words with their colours."""
    lines = [[(samples.truth(index), LIGHT.ink)]]
    for mode in modes:
        wrong = samples.wrong(index, mode)
        symbol = [(f"{SYMBOLS[mode]} ", getattr(LIGHT, mode))] if mode else []
        if wrong is not None:
            lines.append([*symbol, (f"✗ {wrong}", LIGHT.wrong)])
        elif mode:
            lines.append([*symbol, ("✓", LIGHT.muted)])
    return lines


def _write(
    figure: Figure, size: tuple[int, int], x: float, y: float, words: list[tuple[str, str]], room: float
) -> None:
    """Words in a row from pixel (x, y), the top left being (0, 0); what passes ``room`` pixels is cut."""
    start, end = x, x + room
    for text, colour in words:
        weight = "bold" if colour == LIGHT.ink else "normal"
        artist = figure.text(
            x / size[0], 1 - y / size[1], text, color=colour, weight=weight, fontsize=7.5, va="top",
            parse_math=False,
        )  # fmt: skip
        for length in range(len(text) - 1, 0, -1):
            if artist.get_window_extent().x1 <= end + 1:
                break
            artist.set_text(shorten(text, length))
        # A trailing blank has no extent of its own; after a lone symbol all lines go on at one place.
        lone = len(text.rstrip()) == 1
        x = start + 19 if lone else artist.get_window_extent().x1 + 4 * (len(text) - len(text.rstrip()))


def confusions(transfer: dict[str, Any]) -> dict[str, np.ndarray]:
    """By mode: shares (K, K) of each true class (row) that were called each class, all seeds together."""
    found = {}
    for mode in MODES:
        counts = [
            np.asarray(result["confusion"], np.float64)
            for result in transfer["results"]
            if result["mode"] == mode and result.get("confusion") is not None
        ]
        if counts:
            total = np.sum(counts, axis=0)
            found[mode] = total / np.maximum(total.sum(axis=1, keepdims=True), 1)
    return found


def confusion_chart(transfer: dict[str, Any], look: Look) -> Figure | None:
    """A matrix for each mode: right answers in blue, wrong ones in orange on a scale of their own.

    :returns: none if no result has a confusion matrix.
    """
    found = confusions(transfer)
    if not found:
        return None
    names = [shorten(str(name), 14) for name in transfer["classes"]]
    wrong = [shares[~np.eye(len(names), dtype=bool)].max(initial=0.0) for shares in found.values()]
    ceiling = max(0.1, *wrong)
    left, below = _margins(names)
    across = 1 if look.narrow else len(found)
    side = min((look.width - left - 0.05 - (across - 1) * 0.16) / across, 3.2)
    panel = side + 0.36
    height = len(found) // across * panel + below
    with styled(look):
        figure = new_figure(look.width, height)
        for number, (mode, shares) in enumerate(found.items()):
            row, column = divmod(number, across)
            place = (left + column * (side + 0.16), height - row * panel - 0.3 - side, side, side)
            axes = figure.add_axes(np.divide(place, (look.width, height, look.width, height)))
            title(axes, f"{SYMBOLS[mode]} {MODE_NAMES[mode]}", look, mode)
            _matrix(axes, shares, ceiling, look)
            _name_classes(axes, names, at_left=column == 0, below=row == len(found) // across - 1)
        figure.text(
            0.02 / look.width,
            1 - 0.215 / height,
            "true ↓ said →",
            color=look.theme.muted,
            fontsize=7,
            va="baseline",
        )
    return figure


def _margins(names: list[str]) -> tuple[float, float]:
    """Inches at the left and below for the classes' names; a character is about half as wide as high."""
    longest = max(map(len, names), default=0)
    if len(names) > NAMED:
        return CORNER, 0.3
    if len(names) > NUMBERED:
        return max(0.2 + 0.046 * longest, CORNER), 0.2 + 0.046 * longest
    return max(0.2 + 0.063 * longest, CORNER), 0.25 + 0.05 * longest


def _matrix(axes: Axes, shares: np.ndarray, ceiling: float, look: Look) -> None:
    theme, k = look.theme, len(shares)
    right = LinearSegmentedColormap.from_list("right", [theme.ground, theme.frozen])
    wrong = LinearSegmentedColormap.from_list("wrong", [theme.ground, theme.finetuned])
    colours = wrong(shares / ceiling)[..., :3]
    diagonal = np.arange(k)
    colours[diagonal, diagonal] = right(shares[diagonal, diagonal])[:, :3]
    # Cells smaller than a pixel are averaged, not dropped.
    axes.imshow(colours, interpolation="nearest" if k <= 200 else "auto", aspect="equal")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
    if k > NUMBERED:
        return
    for row, column in np.argwhere(shares >= 0.005):
        axes.text(
            column, row, f"{100 * shares[row, column] + 1e-9:.0f}", ha="center", va="center",
            color=_readable(colours[row, column], look), fontsize=8.5 if k <= 6 else 6.5,
        )  # fmt: skip


def _readable(cell: np.ndarray, look: Look) -> tuple[float, ...]:
    """Of the theme's ink and ground, the one with more contrast to the cell (WCAG 2's ratio)."""
    candidates = [to_rgb(look.theme.ink), to_rgb(look.theme.ground)]
    own = _luminance(cell)
    return max(candidates, key=lambda colour: abs(np.log((_luminance(colour) + 0.05) / (own + 0.05))))


def _luminance(colour: Any) -> float:
    """Relative luminance of sRGB in 0..1, as WCAG 2 defines it."""
    values = np.asarray(colour, np.float64)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _name_classes(axes: Axes, names: list[str], *, at_left: bool, below: bool) -> None:
    """True names at the left, names said below, of the matrices at the figure's edge only."""
    if len(names) > NAMED:
        axes.set_xticks([])
        axes.set_yticks([])
        if below:
            axes.set_xlabel(f"{len(names)} classes", fontsize=8)
        return
    places, numbered = range(len(names)), len(names) <= NUMBERED
    options = {"fontsize": 8 if numbered else 6, "parse_math": False}
    axes.set_xticks(places, names if below else [""] * len(names), rotation=45 if numbered else 90, **options)
    for label in axes.get_xticklabels():
        label.set(ha="right", va="top" if numbered else "center", rotation_mode="anchor")
    axes.set_yticks(places, names if at_left else [""] * len(names), **options)
    axes.tick_params(length=0)
