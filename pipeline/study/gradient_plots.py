"""The panels of the study of gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.figures.style import Look, new_figure, styled, title
from pipeline.study.compared import lane
from pipeline.study.seeds import COSINE, over_seeds

if TYPE_CHECKING:
    from pipeline.study.gradients import Looked

STYLES = {"plain20": "--", "plain56": "-", "resnet20": "--", "resnet56": "-"}
SETTINGS = {
    "": "batch norm, He et al.",
    "-gauss": "batch norm, N(0, 0.1²)",
    "-bare": "no batch norm, He et al.",
    "-bare-gauss": "no batch norm, N(0, 0.1²)",
}
LEAST = 1e-45
"""Of float32; what is smaller is shown there."""


def norms(looked: Looked, look: Look) -> Figure:
    def draw(axes: Axes, member: str, net: str) -> None:
        values = np.maximum(looked.of(member, "norms"), LEAST)  # (S, N + 1)
        _band(axes, _along(values.shape[1]), values / values[:, -1:], net, look)

    return _settings(looked, look, draw, "layer, as a share of the depth")


def jacobians(looked: Looked, look: Look) -> Figure:
    def draw(axes: Axes, member: str, net: str) -> None:
        points = looked.of(member, "points")[0]
        place = points / (looked.of(member, "norms").shape[1] - 1)  # norms are at 0..N, points too
        _band(axes, place, np.maximum(looked.of(member, "typical"), LEAST), net, look)
        largest = np.exp(np.log(np.maximum(looked.of(member, "largest"), LEAST)).mean(0))
        axes.plot(place, largest, "^", color=_colour(net, look), markersize=3.5, fillstyle=_fill(net))

    return _settings(looked, look, draw, "i, as a share of the depth")


def _settings(looked: Looked, look: Look, draw, label: str) -> Figure:
    """Four panels on a logarithmic scale: with and without batch norm, in two ways of drawing."""
    with styled(look):
        figure = new_figure(look.width, 5.2)
        grid = figure.subplots(2, 2, sharex=True)
        for axes, (word, name) in zip(grid.flat, SETTINGS.items(), strict=True):
            title(axes, name, look)
            for net in looked.nets:
                if net + word in looked.study.members:
                    draw(axes, net + word, net)
            axes.set_yscale("log")
            axes.axhline(1, color=look.theme.muted, linewidth=0.8, zorder=1)
        for axes in grid[1]:
            axes.set_xlabel(label)
        _key(figure, looked.nets, look)
        figure.tight_layout(rect=(0, 0, 1, 0.95))
        return figure


def spectrum(looked: Looked, look: Look) -> Figure:
    nets = [net for net in ("plain20", "resnet20", "plain56", "resnet56") if net in looked.study.members]
    with styled(look):
        figure = new_figure(look.width, 2.6 if not look.narrow else 4.6)
        grid = figure.subplots(*((1, len(nets)) if not look.narrow else (2, 2)), sharex=True, sharey=True)
        for axes, net in zip(np.ravel(grid), nets, strict=False):
            title(axes, net, look)
            values = looked.of(net, "eigenvalues")[0]
            axes.plot(values[:, 0], values[:, 1], "o", color=_colour(net, look), markersize=1.4, alpha=0.6)
            axes.plot([1], [0], "+", color=look.theme.ink, markersize=9)
            axes.set_aspect("equal")
            axes.grid(True, axis="x")
        figure.supxlabel("real part", fontsize=9, color=look.theme.muted)
        figure.tight_layout()
        return figure


def noise(looked: Looked, look: Look) -> Figure:
    """Signal to noise above cosine; plain left, residual right; a line for each step looked at."""
    trained = [net for net in looked.nets if len(looked.steps(net)) > 1]
    families = [[net for net in looked.nets if net.startswith(word)] for word in ("plain", "resnet")]
    nets = [([net for net in own if net in trained] or own)[-1] for own in families]
    with styled(look):
        figure = new_figure(look.width, 4.6)
        grid = figure.subplots(2, 2, sharex=True, sharey="row")
        for row, (key, name) in zip(grid, (("snr", "signal / noise"), ("cosine", "cosine")), strict=True):
            for axes, net in zip(row, nets, strict=True):
                title(axes, f"{net}: {name}", look)
                steps = looked.steps(net)
                for shade, step in zip(np.linspace(0.3, 1, len(steps)), steps, strict=True):
                    values = looked.of(net, key, step).mean(0)
                    values = np.where(values > 0, values, np.nan) if key == "snr" else values
                    axes.plot(
                        _along(len(values)), values, "o-", color=_colour(net, look), alpha=shade,
                        markersize=2, linewidth=1.3, label=f"step {step}",
                    )  # fmt: skip
                axes.set_yscale("log" if key == "snr" else "linear")
        for axes in grid[1]:
            axes.set_xlabel("layer, as a share of the depth")
            axes.legend(frameon=False, fontsize=8, labelcolor=look.theme.muted)
        figure.tight_layout()
        return figure


def shattering(looked: Looked, look: Look) -> Figure:
    words = [word for word in ("", "-bare") if f"plain56{word}" in looked.study.members]
    with styled(look):
        figure = new_figure(look.width, 2.9)
        grid = np.ravel(figure.subplots(1, len(words), sharey=True))
        for axes, word in zip(grid, words, strict=True):
            title(axes, SETTINGS[word], look)
            for net in looked.nets:
                values = looked.of(net + word, "autocorrelation")
                share = np.arange(values.shape[1]) / (looked.study.look.places - 1)
                _band(axes, share, values, net, look, logs=False)
            axes.axhline(0, color=look.theme.muted, linewidth=0.8, zorder=1)
            axes.set_xlabel("τ, as a share of the way between two pictures")
        _key(figure, looked.nets, look)
        figure.tight_layout(rect=(0, 0, 1, 0.92))
        return figure


def redraw(looked: Looked, look: Look) -> Figure:
    """A lane for each net as drawn, with and without batch norm, and for the trained ones at the end."""
    drawn = [net + word for word in ("", "-bare") for net in looked.nets]
    lanes = [(member, 0) for member in drawn if member in looked.study.members]
    lanes += [(net, looked.last) for net in looked.nets if len(looked.steps(net)) > 1]
    with styled(look):
        figure = new_figure(look.width, 0.28 * len(lanes) + 0.8)
        axes = figure.subplots()
        for y, (member, step) in enumerate(lanes):
            values = looked.of(member, "redrawn", step)
            found, colour = over_seeds(values, COSINE), _colour(member, look)
            lane(axes, y, values, found, colour, fill=_fill(member))
        axes.set_yticks(range(len(lanes)), [f"{member}, step {step}" for member, step in lanes])
        axes.set_ylim(len(lanes) - 0.4, -0.6)
        axes.set_xlim(-1.02, 1.02)
        axes.axvline(0, color=look.theme.muted, linewidth=0.8, zorder=1)
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
        axes.set_xlabel("cosine of early gradients over draws of the later layers")
        figure.tight_layout()
        return figure


def _along(count: int) -> np.ndarray:
    return np.linspace(0, 1, count)


def _band(axes: Axes, x: np.ndarray, values: np.ndarray, net: str, look: Look, logs: bool = True) -> None:
    """Mean over seeds (S, X), geometric on logarithmic scales, and the band from least to greatest."""
    middle = np.exp(np.log(values).mean(0)) if logs else values.mean(0)
    colour = _colour(net, look)
    axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, middle, STYLES[net], color=colour, linewidth=1.6)


def _colour(net: str, look: Look) -> str:
    return look.theme.finetuned if net.startswith("plain") else look.theme.frozen


def _fill(net: str) -> str:
    return "none" if "20" in net else "full"


def _key(figure: Figure, nets: list[str], look: Look) -> None:
    marks = [Line2D([], [], color=_colour(net, look), linestyle=STYLES[net], linewidth=1.6) for net in nets]
    figure.legend(
        marks, nets, loc="upper right", ncols=len(nets), fontsize=8, frameon=False, handlelength=1.8,
        columnspacing=1.2, labelcolor=look.theme.muted,
    )  # fmt: skip
