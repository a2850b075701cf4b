"""VGG: deeper is better until it is not, with and without batch norm (Simonyan & Zisserman 2014, table 3)."""

import re

from matplotlib.figure import Figure

from pipeline.config import StudyConfig, TrainConfig, UserError
from pipeline.figures.style import Look, new_figure, styled, title
from pipeline.study.compared import lane, table
from pipeline.study.members import Key
from pipeline.study.page import Page, Panel, Verdict
from pipeline.study.seeds import judge, over_seeds
from pipeline.study.trained import Trained

DEPTHS = (11, 13, 16, 19)
PAPER = {11: "A: 29.6", 13: "B: 28.7", 16: "D: 27.0", 19: "E: 27.3"}
"""Top-1 validation error on ImageNet, %, trained and tested at one scale, 256: table 3."""
NAMES = {"": "without batch norm", "_bn": "with batch norm"}


def check(study: StudyConfig, configs: dict[Key, TrainConfig]) -> None:
    """:raises UserError: a member is no VGG, or one that is compared is missing."""
    for (member, _), config in configs.items():
        if not re.fullmatch(r"vgg(11|13|16|19)(_bn)?", member) or config.model.name != member:
            raise UserError(f"members.{member}: {config.model.name}; members are vgg11 to vgg19_bn by name")
    for depth in DEPTHS:
        for word in NAMES:
            if f"vgg{depth}{word}" not in study.members:
                raise UserError(f"members: vgg{depth}{word} is missing; the page compares all eight")


def page(trained: Trained) -> Page:
    source = "Simonyan & Zisserman 2014, section 4.1 and table 3"
    verdicts = []
    for word, name in NAMES.items():
        deeper = trained.difference(f"vgg11{word}", f"vgg16{word}", "val")
        further = trained.difference(f"vgg19{word}", f"vgg16{word}", "val")
        verdicts += [
            Verdict(
                f"16 layers have a lower test error than 11, {name}", source,
                f"by {deeper.told()} points", judge(deeper),
            ),
            Verdict(
                f"19 layers are no better than 16, {name}", source,
                f"worse by {further.told()} points", judge(further),
            ),
        ]  # fmt: skip
    gap = trained.difference("vgg19", "vgg19_bn", "val")
    verdicts.append(
        Verdict(
            "Batch norm trains the deepest better in as many steps",
            "Ioffe & Szegedy 2015 (arXiv:1502.03167)",
            f"19 layers: by {gap.told()} points", judge(gap),
        )
    )  # fmt: skip
    panel = Panel(
        "vgg",
        "Test error by depth",
        lambda look: chart(trained, look),
        "",
        "Bars: 95 % intervals over seeds; points: seeds.",
    )
    paper = {"paper, ImageNet top-1 error, %": {f"vgg{depth}": PAPER[depth] for depth in DEPTHS}}
    caption = "The paper's nets are of the full width, and had no batch norm."
    return Page("VGG on 32×32", verdicts, trained.told(), [], [panel], [table(trained, paper, caption)])


def chart(trained: Trained, look: Look) -> Figure:
    with styled(look):
        figure = new_figure(look.width, 3)
        for axes, (word, name) in zip(figure.subplots(1, 2, sharey=True), NAMES.items(), strict=True):
            title(axes, f"Test error, %, {name}", look)
            for place, depth in enumerate(DEPTHS):
                errors = trained.errors(f"vgg{depth}{word}", "val")
                lane(axes, place, errors, over_seeds(errors), look.theme.frozen, upright=True)
            axes.set_xticks(range(len(DEPTHS)), [str(depth) for depth in DEPTHS])
            axes.set_xlim(-0.5, len(DEPTHS) - 0.5)
            axes.set_xlabel("layers with weights")
        figure.tight_layout()
        return figure
