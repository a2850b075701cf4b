"""Depth: deeper plain nets train worse, deeper residual nets better (He et al. 2015, figures 1 and 6)."""

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.config import StudyConfig, TrainConfig, UserError
from pipeline.figures.style import Look, new_figure, spread, styled, title
from pipeline.study.members import Key
from pipeline.study.page import Page, Panel, Table, Verdict
from pipeline.study.seeds import PERCENT, judge, judge_all, over_seeds
from pipeline.study.trained import Trained, error_curve

FAMILIES = {"plain": "Plain nets", "resnet": "Residual nets"}
SPLITS = {"train": "training error", "val": "test error"}
PAIR = (20, 56)
"""Depths of figure 1."""
PAPER = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43}
"""Test error of residual nets, %: He et al. 2015, table 6; no figures are printed for the plain ones."""


def page(trained: Trained) -> Page:
    members = depths(trained.study, trained.configs)
    return Page(
        "Depth: plain and residual nets on CIFAR-10",
        verdicts(trained, members),
        trained.told(),
        [],
        [
            Panel(
                "depth",
                "Errors while training",
                lambda look: curves(trained, members, look),
                "plain: z′ = relu(F(z))     residual: z′ = relu(F(z) + z)",
                "The layout of He et al. 2015, figure 1, and its residual counterpart. Thick: the mean over "
                "seeds; bands: from the least to the greatest seed. Training errors are of the batches as "
                "they were trained on.",
            )
        ],
        [table(trained, members)],
    )


def check(study: StudyConfig, configs: dict[Key, TrainConfig]) -> None:
    """:raises UserError: the members are not plain and residual nets of at least two depths."""
    found = depths(study, configs)
    if any(len(of) < 2 for of in found.values()):
        raise UserError("members: depth compares two or more plain nets, and two or more resnets")


def depths(study: StudyConfig, configs: dict[Key, TrainConfig]) -> dict[str, dict[int, str]]:
    """By family the members by depth, shallow first."""
    found: dict[str, dict[int, str]] = {family: {} for family in FAMILIES}
    for member in study.members:
        name = configs[member, study.seeds[0]].model.name
        parts = re.fullmatch(r"(plain|resnet)(\d+)", name)
        if not parts:
            raise UserError(f"members.{member}: model.name is {name}; depth compares plain nets and resnets")
        family, depth = parts[1], int(parts[2])
        if depth in found[family]:
            raise UserError(
                f"members.{member}: {found[family][depth]} is {name} too; depth compares one of each"
            )
        found[family][depth] = member
    return {family: dict(sorted(of.items())) for family, of in found.items()}


def pair(members: dict[int, str]) -> tuple[int, int]:
    """The depths that are compared: the paper's, where both are there, else the least and the greatest."""
    return PAIR if set(PAIR) <= members.keys() else (min(members), max(members))


def source(family: str, depths: tuple[int, int]) -> str:
    """Where the paper shows just these two, else where it says so of deeper nets."""
    if family == "plain" and depths == PAIR:
        return "He et al. 2015, figure 1"
    if family == "resnet" and PAPER.keys() >= set(depths):
        return "He et al. 2015, figure 6 and table 6"
    return "He et al. 2015, section 4.2"


def verdicts(trained: Trained, members: dict[str, dict[int, str]]) -> list[Verdict]:
    found = []
    for family, sign, word in (("plain", 1, "higher"), ("resnet", -1, "lower")):
        shallow, deep = pair(members[family])
        first, last = members[family][shallow], members[family][deep]
        for split, name in SPLITS.items():
            gap = trained.difference(last, first, split)
            found.append(
                Verdict(
                    f"{FAMILIES[family]}: {deep} layers have a {word} {name} than {shallow}",
                    source(family, (shallow, deep)),
                    f"{deep} layers minus {shallow}: {gap.told('{:+.1f}')} points",
                    judge(gap if sign > 0 else trained.difference(first, last, split)),
                )
            )
    if len(members["plain"]) > 2:
        found.append(_degradation(trained, members["plain"]))
    deep = max(members["plain"].keys() & members["resnet"].keys(), default=None)
    if deep:
        gap = trained.difference(members["plain"][deep], members["resnet"][deep], "val")
        found.append(
            Verdict(
                f"With {deep} layers, shortcuts lower the test error",
                "He et al. 2015, section 4.2",
                f"by {gap.told()} points",
                judge(gap),
            )
        )
    return found


def _degradation(trained: Trained, members: dict[int, str]) -> Verdict:
    """Whether plain nets of some depth between are better than both the shallowest and the deepest.

    For each seed the depth between that is compared is the best of the other seeds: the best of its own would
    look better than it is.
    """
    errors = np.array([trained.errors(member, "val") for member in members.values()])  # (depths, S)
    between, seeds = errors[1:-1], range(errors.shape[1])
    others = [np.delete(between, seed, axis=1) if len(seeds) > 1 else between for seed in seeds]
    best = np.array([between[part.mean(1).argmin(), seed] for seed, part in zip(seeds, others, strict=True)])
    shallow, deep = over_seeds(errors[0] - best), over_seeds(errors[-1] - best)
    depths = list(members)
    return Verdict(
        f"Plain nets from {depths[0]} to {depths[-1]} layers: deeper is better, until they degrade",
        "He et al. 2015, section 1",
        f"test error of the best between ({depths[1 + between.mean(1).argmin()]} layers) lower than with "
        f"{depths[0]} by {shallow.told()} points, than with {depths[-1]} by {deep.told()}",
        judge_all(shallow, deep),
    )


def table(trained: Trained, members: dict[str, dict[int, str]]) -> Table:
    rows = []
    for family in FAMILIES:
        for depth, member in members[family].items():
            errors = [over_seeds(trained.errors(member, split), PERCENT).told() for split in SPLITS]
            paper = f"{PAPER[depth]:.2f}" if family == "resnet" and depth in PAPER else "–"
            rows.append([f"{family}-{depth}", *errors, paper])
    return Table(
        "At the end",
        ["net", "training error, %", "test error, %", "test error in the paper, %"],
        rows,
        "Training: mean over the last epoch's batches, cut and flipped at random. The paper's figures are of "
        "the full width, 164 epochs and padded 32×32 windows: beside them only the order can be compared.",
    )


def curves(trained: Trained, members: dict[str, dict[int, str]], look: Look) -> Figure:
    """Training error left, test error right; plain nets above residual ones, on one scale."""
    with styled(look):
        figure = new_figure(look.width, 5.4)
        grid = figure.subplots(2, 2, sharex=True, sharey=True)
        for row, (family, name) in zip(grid, FAMILIES.items(), strict=True):
            for axes, (split, what) in zip(row, SPLITS.items(), strict=True):
                title(axes, f"{name}: {what}, %", look)
                _lines(axes, trained, members[family], split, look)
        for axes in grid[1]:
            axes.set_xlabel("epoch")
        grid[0, 0].set_xlim(left=0)
        figure.tight_layout(w_pad=3 if not look.narrow else 1.5, h_pad=1.5)
        figure.subplots_adjust(right=0.93 if not look.narrow else 0.9)
        return figure


def _lines(axes: Axes, trained: Trained, members: dict[int, str], split: str, look: Look) -> None:
    colours = _colours(len(members), look)
    ends = []
    for (depth, member), colour in zip(members.items(), colours, strict=True):
        epochs, errors = error_curve(trained.of(member), split)
        axes.fill_between(epochs, errors.min(0), errors.max(0), color=colour, alpha=0.2, linewidth=0)
        mark = "o" if split == "val" and len(epochs) < 25 else ""
        axes.plot(epochs, errors.mean(0), mark + "-", color=colour, linewidth=1.6, markersize=3)
        ends.append((depth, errors.mean(0)[-1], colour))
    low, high = axes.get_ylim()
    places = spread([value for _, value, _ in ends], 0.07 * (high - low))
    for (depth, _, colour), place in zip(ends, places, strict=True):
        axes.annotate(
            str(depth), (1, place), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", color=colour, weight="bold", annotation_clip=False,
        )  # fmt: skip


def _colours(number: int, look: Look) -> list[str]:
    """Shallow to deep; the two of the papers' figures are told apart by any eye."""
    theme = look.theme
    few = [theme.frozen, theme.finetuned, theme.test, theme.val, theme.muted, theme.wrong, theme.ink]
    return [few[i % len(few)] for i in range(number)]
