"""The names, and `build`: a table for VGG and ImageNet; for 32x32 pictures any depth of 6n + 2."""

import difflib
import math
import re
from dataclasses import replace

from pipeline.config import UserError
from pipeline.models.net import ConvNet
from pipeline.models.pattern import BOTTLENECK, IMAGENET, SMALL, VGG, Pattern

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

# The usual depths for 32x32: those of He et al. 2015, table 6, and two smaller ones. Any other 6n + 2 works.
SMALL_DEPTHS = (8, 14, 20, 32, 44, 56, 110, 1202)


def names() -> list[str]:
    """Every name of the table, and the usual ones of the nets for 32x32 pictures."""
    return [*PATTERNS, *(f"{family}{depth}" for family in ("plain", "resnet") for depth in SMALL_DEPTHS)]


def find(name: str) -> Pattern:
    """The pattern of a name; UserError, naming the nearest right names, where there is none.

    Depths 50 and 152 are 6n + 2 too but mean the ImageNet bottlenecks, so `plain50` names nothing.
    """
    if name in PATTERNS:
        return PATTERNS[name]
    if small := re.fullmatch(r"(resnet|plain)([1-9][0-9]{0,3})", name):
        n, rest = divmod(int(small[2]) - 2, 6)  # 2n layers in each of three stages, the stem and the head
        if rest == 0 and n >= 1 and f"resnet{small[2]}" not in PATTERNS:
            residual = replace(SMALL, depths=(n, n, n))
            return residual if small[1] == "resnet" else replace(residual, shortcut=None)
    near = difflib.get_close_matches(name.lower(), names(), n=3)
    choice = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(names())}"
    raise UserError(
        f"model.name: unknown name {name!r}; {choice} (for 32x32 pictures: resnet or plain, depth 6n + 2)"
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
    conv_std: float | None = None,
) -> ConvNet:
    """A freshly initialised net by name; a switch that is None keeps the name's own setting.

    - `classes`: number of logits.
    - `zero_init`: every residual block starts as its shortcut alone.
    - `shortcut`: of a residual net, 'projection' (option B) or 'pad' (option A).
    - `norm`: batch norm behind every convolution.
    - `width`: multiplies every channel count, and VGG's hidden layers.
    - `dropout`: probability behind each of VGG's hidden layers; for the others, in front of the head.
    - `conv_std`: convolutions start as N(0, conv_std^2) instead of by He et al.

    Raises UserError for an unknown name, a value out of range, or a switch that the net has no place for.
    """
    own = find(name)
    if classes < 1:
        raise UserError(f"classes={classes}: a net needs at least 1")
    if not (math.isfinite(width) and width > 0):
        raise UserError(f"model.width={width}: must be above 0; 1 is the paper's")
    if dropout is not None and not 0 <= dropout <= 1:
        raise UserError(f"model.dropout={dropout}: must lie in 0..1")
    if conv_std is not None and not (math.isfinite(conv_std) and conv_std > 0):
        raise UserError(f"model.conv_std={conv_std}: must be above 0")
    if shortcut not in (None, "projection", "pad"):
        raise UserError(f"model.shortcut={shortcut!r}: must be 'projection' or 'pad'")
    if own.shortcut is None and (shortcut or zero_init):
        switch = f"shortcut={shortcut!r}" if shortcut else "zero_init=True"
        raise UserError(f"model.{switch}: {name} has no shortcuts; leave it out, or choose a resnet")
    if zero_init and norm is False:
        raise UserError("model.zero_init=True: needs the batch norms that model.norm=False takes away")
    given = {"shortcut": shortcut, "norm": norm, "dropout": dropout, "conv_std": conv_std}
    changes = {switch: value for switch, value in given.items() if value is not None}
    return ConvNet(replace(own, zero_init=zero_init, **changes).scaled(width), classes)
