"""The names: each a `Pattern`, by a table and, for 32x32 pictures, by depth = 6n + 2."""

import difflib
import math
import re
from dataclasses import replace

from pipeline.config import UserError
from pipeline.models.pattern import BASIC, BOTTLENECK, SINGLE, ConvNet, Pattern, Stem

# Simonyan & Zisserman 2014, table 1; dropout and N(0, 0.01^2) from section 3.1.
VGG = Pattern(
    depths=(1, 1, 2, 2, 2),
    channels=(64, 128, 256, 512, 512),
    block=SINGLE,
    halving="pool",
    norm=False,
    bias=True,
    grid=7,
    hidden=(4096, 4096),
    dropout=0.5,
    linear_std=0.01,
    flat=True,
)
# He et al. 2015, table 1.
IMAGENET = Pattern(
    depths=(2, 2, 2, 2),
    channels=(64, 128, 256, 512),
    block=BASIC,
    stem=Stem(64, kernel=7, stride=2, pool=True),
    shortcut="projection",
)
# He et al. 2015, section 4.2: n blocks of two layers in each of three stages, the stem and the head.
SMALL = Pattern(
    depths=(3, 3, 3),
    channels=(16, 32, 64),
    block=BASIC,
    stem=Stem(16, kernel=3),
    shortcut="pad",
)

PATTERNS = {
    "vgg11": VGG,
    "vgg13": replace(VGG, depths=(2, 2, 2, 2, 2)),
    "vgg16": replace(VGG, depths=(2, 2, 3, 3, 3)),
    "vgg19": replace(VGG, depths=(2, 2, 4, 4, 4)),
    "vgg11_bn": replace(VGG, norm=True),
    "vgg13_bn": replace(VGG, norm=True, depths=(2, 2, 2, 2, 2)),
    "vgg16_bn": replace(VGG, norm=True, depths=(2, 2, 3, 3, 3)),
    "vgg19_bn": replace(VGG, norm=True, depths=(2, 2, 4, 4, 4)),
    "plain18": replace(IMAGENET, shortcut=None),
    "plain34": replace(IMAGENET, shortcut=None, depths=(3, 4, 6, 3)),
    "resnet18": IMAGENET,
    "resnet34": replace(IMAGENET, depths=(3, 4, 6, 3)),
    "resnet50": replace(IMAGENET, depths=(3, 4, 6, 3), block=BOTTLENECK),
    "resnet101": replace(IMAGENET, depths=(3, 4, 23, 3), block=BOTTLENECK),
    "resnet152": replace(IMAGENET, depths=(3, 8, 36, 3), block=BOTTLENECK),
}

# The depths that He et al. 2015 name in section 4.2 (20 to 1202), and two smaller ones; any other 6n + 2 works.
SMALL_DEPTHS = (8, 14, 20, 32, 44, 56, 110, 1202)


def names() -> list[str]:
    """Every name of the table, and the usual ones of the 6n + 2 nets."""
    return [*PATTERNS, *(f"{family}{depth}" for family in ("plain", "resnet") for depth in SMALL_DEPTHS)]


def find(name: str) -> Pattern:
    """The pattern of a name; UserError, naming the nearest right names, where there is none.

    Depths 50 and 152 are 6n + 2 as well, but mean the ImageNet nets; so `plain50` is no name at all.
    """
    if name in PATTERNS:
        return PATTERNS[name]
    small = re.fullmatch(r"(resnet|plain)([1-9]\d*)", name)
    if small and f"resnet{small[2]}" not in PATTERNS and int(small[2]) >= 8 and int(small[2]) % 6 == 2:
        n = (int(small[2]) - 2) // 6
        return replace(SMALL, depths=(n, n, n), shortcut=None if small[1] == "plain" else "pad")
    near = difflib.get_close_matches(name.lower(), names(), n=3) or names()
    raise UserError(
        f"model.name: no model is called {name!r}; nearest: {', '.join(near)} "
        "(nets for 32x32 pictures: resnet or plain and a depth of 6n + 2)"
    )


def build(
    name: str,
    classes: int,
    *,
    zero_init: bool = False,
    shortcut: str | None = None,
    norm: bool | None = None,
    width: float = 1.0,
    dropout: float | None = None,
) -> ConvNet:
    """A freshly initialised net by name; the switches that are None keep the name's own setting.

    - `classes`: width of the logits.
    - `zero_init`: each residual block starts as its shortcut alone.
    - `shortcut`: 'projection' (option B) or 'pad' (option A), for residual nets.
    - `norm`: batch norm behind every convolution. Deep nets without it barely train; that is the lesson.
    - `width`: multiplies every channel count and VGG's hidden layers.
    - `dropout`: probability in front of the head, and behind VGG's hidden layers.

    Raises UserError for a name that is none, a value out of range, or a switch that the net has no place for.
    """
    own = find(name)
    if classes < 1:
        raise UserError(f"classes={classes}: a classifier needs at least 1")
    if not (math.isfinite(width) and width > 0):
        raise UserError(f"model.width={width}: must be a number above 0, 1 being the paper's")
    if dropout is not None and not 0 <= dropout <= 1:
        raise UserError(f"model.dropout={dropout}: must lie in 0..1")
    if shortcut not in (None, "projection", "pad"):
        raise UserError(f"model.shortcut={shortcut!r}: must be 'projection' or 'pad'")
    if own.shortcut is None and (shortcut or zero_init):
        switch = f"shortcut={shortcut!r}" if shortcut else "zero_init=True"
        raise UserError(f"model.{switch}: {name} has no shortcuts; leave it out or choose a resnet")
    wanted = {"shortcut": shortcut, "norm": norm, "dropout": dropout}
    changed = {switch: value for switch, value in wanted.items() if value is not None}
    if zero_init and not changed.get("norm", own.norm):
        raise UserError(
            "model.zero_init=True: there is no batch norm to start at zero while model.norm=False"
        )
    return ConvNet(replace(own, zero_init=zero_init, **changed).scaled(width), classes)
