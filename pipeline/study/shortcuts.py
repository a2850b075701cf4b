"""Shortcuts: zeros for new channels against 1×1 projections; and what the stem's cut of resolution saves."""

from dataclasses import replace

import torch
from matplotlib.figure import Figure

from pipeline.config import StudyConfig, TrainConfig, UserError
from pipeline.figures.style import Look, new_figure, styled, title
from pipeline.models import ConvNet, cost
from pipeline.models.cost import saved
from pipeline.models.pattern import IMAGENET, Pattern, Stem
from pipeline.study.compared import costs, lane, table
from pipeline.study.members import Key
from pipeline.study.page import Page, Panel, Table, Verdict
from pipeline.study.seeds import judge, over_seeds
from pipeline.study.trained import Trained

KINDS = ("pad", "projection")
STEMS = {
    "the paper's: 7×7/2, max pool/2": IMAGENET,
    "7×7/2, no pool": replace(IMAGENET, stem=Stem(64, kernel=7, stride=2)),
    "7×7, no pool": replace(IMAGENET, stem=Stem(64, kernel=7)),
}
"""Of ResNet-18."""
SIZE = 224


def check(study: StudyConfig, configs: dict[Key, TrainConfig]) -> None:
    """:raises UserError: the members are not one net with both shortcuts."""
    for kind in KINDS:
        if kind not in study.members:
            raise UserError(f"members: {kind} is missing; the page compares pad with projection")
        if (found := configs[kind, study.seeds[0]].model.shortcut) != kind:
            raise UserError(f"members.{kind}: model.shortcut is {found}; write model.shortcut: {kind}")


def page(trained: Trained) -> Page:
    gap = trained.difference("pad", "projection", "val")
    one, two = costs(trained, "pad"), costs(trained, "projection")
    whole, uncut = (activations(STEMS[name]) for name in (*STEMS,)[::2])
    verdicts = [
        Verdict(
            "Projections are slightly better than padding with zeros",
            "He et al. 2015, table 3: 24.52 % against 25.03 % on ImageNet",
            f"test error lower by {gap.told()} points",
            judge(gap),
        ),
        Verdict(
            "Padding costs no parameters",
            "He et al. 2015, section 3.3",
            f"projections: {two['parameters'] - one['parameters']:+,} parameters, "
            f"{(two['macs'] - one['macs']) / 1e6:+.3f} million multiply-adds; exact, of no seed",
            "agrees" if two["parameters"] > one["parameters"] else "does not agree",
        ),
        Verdict(
            "Cutting the resolution in the stem saves most of the memory of activations",
            "the lectures",
            f"without the cut a picture's are {uncut / whole:.1f} times as large; counted, of no seed",
            "agrees" if uncut > 2 * whole else "does not agree",
        ),
    ]
    panel = Panel(
        "shortcuts",
        "Test error",
        lambda look: chart(trained, look),
        "z′ = relu(F(z) + S(z))     pad: S(z) = (z₍₂ᵢ,₂ⱼ₎, 0)     projection: S(z) = W z₍₂ᵢ,₂ⱼ₎",
        "Bars: 95 % intervals over seeds; points: seeds.",
    )
    tables = [table(trained, {}, "Multiply-adds of one picture as it is tested."), stems()]
    return Page("Shortcuts where shapes change", verdicts, trained.told(), [], [panel], tables)


def activations(pattern: Pattern) -> int:
    """Bytes of a picture that autograd keeps from forward to backward, in float32: counted storage by
    storage."""
    with torch.device("meta"):
        return saved(ConvNet(pattern, 1000), SIZE, torch.float32).picture


def stems() -> Table:
    rows = []
    for name, pattern in STEMS.items():
        with torch.device("meta"):
            macs = cost(ConvNet(pattern, 1000), SIZE)["macs"]
        rows.append([name, f"{activations(pattern) / 2**20:.1f}", f"{macs / 1e9:.2f}"])
    caption = (
        f"ResNet-18 on {SIZE}×{SIZE} in float32: all that autograd keeps for the backward pass, each storage "
        "counted once (`pipeline/models/cost.py`)."
    )
    head = ["stem", "activations of a picture, MiB", "multiply-adds, billions"]
    return Table("What the stem saves", head, rows, caption)


def chart(trained: Trained, look: Look) -> Figure:
    with styled(look):
        figure = new_figure(look.width, 1.5)
        axes = figure.subplots()
        title(axes, "Test error, %", look)
        for place, kind in enumerate(KINDS):
            errors = trained.errors(kind, "val")
            lane(axes, place, errors, over_seeds(errors), look.theme.frozen)
        axes.set_yticks(range(len(KINDS)), KINDS)
        axes.set_ylim(len(KINDS) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
        figure.tight_layout()
        return figure
