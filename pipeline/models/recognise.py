"""Which of our nets a file's tensors belong to, by their names and shapes alone.

What leaves no trace in them cannot be told: where a bottleneck's stride stands, how pictures are blurred
before they shrink (timm's resnetblur50, resnetaa50), or a shortcut without parameters (plain20 or resnet20).
"""

from collections.abc import Mapping

import torch

from pipeline.config import UserError
from pipeline.models.pattern import Pattern
from pipeline.models.zoo import PATTERNS, build, find

Shapes = Mapping[str, tuple[int, ...]]


def recognise(shapes: Shapes) -> list[str]:
    """Names of the nets that have just these tensors. The head may be of any width, or missing."""
    layers = sum(len(shape) == 4 and "downsample" not in name for name, shape in shapes.items())
    candidates = [name for name, pattern in PATTERNS.items() if _convolutions(pattern) == layers]
    for name in (f"resnet{layers + 1}", f"plain{layers + 1}"):
        try:
            if _convolutions(find(name)) == layers and name not in candidates:
                candidates.append(name)
        except UserError:
            continue  # no such depth
    return [name for name in candidates if not difference(name, shapes)]


def difference(name: str, shapes: Shapes) -> str | None:
    """The first thing that tells these tensors from the named net's, in words; none if nothing does."""
    own, head = _shapes(name)
    given = {key: shape for key, shape in shapes.items() if not key.startswith(head)}
    for key in (*own, *given):
        if key not in given:
            return f"{key} is missing"
        if key not in own:
            return f"there is {key} {_told(given[key])}"
        if own[key] != given[key]:
            return f"{key} is {_told(given[key])}, not {_told(own[key])}"
    return None


def described(shapes: Shapes) -> str:
    """What tensors are that are none of our nets', in words."""
    known = {name: _shapes(name)[0] for name in PATTERNS}
    same = {name: sum(shapes.get(key) == shape for key, shape in own.items()) for name, own in known.items()}
    # Of equal ones the one of most like names: a plain net is a ResNet's part.
    alike = {name: len(own.keys() & shapes.keys()) for name, own in known.items()}
    nearest = max(known, key=lambda name: (same[name], alike[name], -len(known[name])))
    if same[nearest] < 0.1 * len(shapes):
        first = ", ".join(f"{key} {_told(shape)}" for key, shape in list(shapes.items())[:2])
        return f"{len(shapes)} tensors, {first}, ...: neither a ResNet, nor a plain net, nor a VGG"
    return f"like {nearest}, but {difference(nearest, shapes)}"


def _convolutions(pattern: Pattern) -> int:
    return len(pattern.block) * sum(pattern.depths) + bool(pattern.stem)


def _shapes(name: str) -> tuple[dict[str, tuple[int, ...]], str]:
    """All but the head's, in order, and the prefix of the head's names."""
    with torch.device("meta"):
        net = build(name, 1)
    head = f"{net.head_name}."
    return {
        key: tuple(value.shape) for key, value in net.state_dict().items() if not key.startswith(head)
    }, head


def _told(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"
