"""One pattern of convolutional network; VGG, plain and residual nets are settings of it.

    picture ─► stem ─► stage 1 ─► stage 2 ─► … ─► average pool ─► hidden layers ─► head ─► logits

- A **layer** is a convolution, a batch norm if there is one, and a ReLU.
- A **block** is a short chain of layers: one 3x3 (VGG), two 3x3, or the bottleneck 1x1, 3x3, 1x1.
- A **stage** is a row of blocks at one resolution. From one stage to the next the resolution halves and the
  channels double, which keeps the cost of a layer the same everywhere (He et al. 2015, section 3.3).
- The **shortcut** is the one thing that makes a net residual: a block's input is added to its output before the
  last ReLU, y = relu(F(x) + shortcut(x)) (He et al. 2015, equations 1 and 2). Without it the same net is plain.

What the families set differently:

    |               | VGG (table 1, A B D E)      | ImageNet (table 1)           | 32x32 pictures (section 4.2) |
    |---------------|-----------------------------|------------------------------|------------------------------|
    | stem          | none                        | 7x7/2, 64, then max pool 3/2 | 3x3, 16                      |
    | channels      | 64 128 256 512 512          | 64 128 256 512 (x4 if        | 16 32 64                     |
    |               |                             | bottleneck)                  |                              |
    | halving       | max pool behind every stage | stride 2 in the first block  | stride 2 in the first block  |
    | shortcut      | none                        | 1x1 projection (option B)    | zero padding (option A)      |
    | after pooling | two hidden layers of 4096   | nothing                      | nothing                      |

Sources: Simonyan & Zisserman 2014, "Very Deep Convolutional Networks", arXiv:1409.1556, table 1 and section 2;
He et al. 2015, "Deep Residual Learning", arXiv:1512.03385, table 1 and sections 3.3, 3.4 and 4.2. The bottleneck's
stride stands on its 3x3 layer, as in torchvision (ResNet v1.5), not on the first 1x1 as in the paper. Parameter
names and initialisation are torchvision's, so a state_dict goes both ways and one seed gives the same weights.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Block = tuple[tuple[int, int], ...]  # (kernel, output channels as a multiple of the stage's) of each layer

SINGLE: Block = ((3, 1),)
BASIC: Block = ((3, 1), (3, 1))
BOTTLENECK: Block = ((1, 1), (3, 1), (1, 4))


@dataclass(frozen=True)
class Stem:
    """The layer in front of the stages."""

    channels: int
    kernel: int
    stride: int = 1
    pool: bool = False
    """Whether a 3x3 max pool of stride 2 follows."""


@dataclass(frozen=True)
class Pattern:
    """Everything that tells one net of the family from another; the module's docstring explains the words."""

    depths: tuple[int, ...]
    """Blocks in each stage."""
    channels: tuple[int, ...]
    """Channels of each stage, before a bottleneck's x4."""
    block: Block
    """The layers of a block."""
    stem: Stem | None = None
    """The layer in front; None: the first stage sees the picture itself."""
    halving: Literal["pool", "stride"] = "stride"
    """How resolution halves: a 2x2 max pool ends every stage, or stride 2 opens every stage but the first."""
    shortcut: Literal["projection", "pad"] | None = None
    """None: a plain net. Else residual, and where shapes differ the shortcut is a strided 1x1 convolution
    (option B) or subsampling with zero-padded channels, which has no parameters (option A)."""
    norm: bool = True
    """Batch norm behind every convolution."""
    bias: bool = False
    """Biases on convolutions even where a batch norm follows; without a norm they always have one."""
    zero_init: bool = False
    """Start every residual block as its shortcut alone: the last batch norm's scale is 0 (Goyal et al. 2017,
    arXiv:1706.02677, section 5.1)."""
    grid: int = 1
    """The average pool leaves grid x grid positions; 1 is global pooling."""
    hidden: tuple[int, ...] = ()
    """Widths of the fully connected layers between the pool and the head."""
    dropout: float = 0.0
    """Behind every hidden layer; without hidden layers, in front of the head."""
    linear_std: float | None = None
    """Fully connected weights start as N(0, linear_std^2), biases 0; None: torch's own for nn.Linear."""
    flat: bool = False
    """Number the layers in one row, `features.N`, instead of `layerK.I.convJ`. Only a net that is one chain
    can be written so, hence never with shortcuts."""

    def __post_init__(self) -> None:
        assert len(self.depths) == len(self.channels) and min(self.depths) >= 1
        assert not (self.flat and self.shortcut), "a shortcut leaves the chain: its block needs a name"
        assert not self.zero_init or (self.shortcut and self.norm), (
            "only a residual block's norm may start at 0"
        )

    def scaled(self, width: float) -> "Pattern":
        """Every channel count and hidden width times `width`, rounded, at least 1."""

        def scale(channels: int) -> int:
            return max(1, round(channels * width))

        return replace(
            self,
            channels=tuple(map(scale, self.channels)),
            hidden=tuple(map(scale, self.hidden)),
            stem=self.stem and replace(self.stem, channels=scale(self.stem.channels)),
        )


class Pad(nn.Module):
    """Option A's shortcut: every stride-th position, zeros for the new channels; no parameters."""

    def __init__(self, extra: int, stride: int):
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]  # (N, C, ceil(H / stride), ceil(W / stride))
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))  # (N, C + extra, …)

    def extra_repr(self) -> str:
        return f"extra={self.extra}, stride={self.stride}"


class Residual(nn.Sequential):
    """y = relu(F(x) + shortcut(x)): a chain of layers, then its shortcut; the last ReLU waits for the sum."""

    def forward(self, x: Tensor) -> Tensor:
        *body, relu, shortcut = self
        out = x
        for layer in body:
            out = layer(out)
        out += shortcut(x)  # in place: no backward pass needs the last norm's or convolution's output
        return relu(out)


def _layer(
    pattern: Pattern, number: int, inputs: int, outputs: int, kernel: int, stride: int
) -> dict[str, nn.Module]:
    """Convolution, norm, ReLU, under torchvision's names; 'same' padding."""
    bias = pattern.bias or not pattern.norm
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)
    norm = {f"bn{number}": nn.BatchNorm2d(outputs)} if pattern.norm else {}
    return {f"conv{number}": conv, **norm, f"relu{number}": nn.ReLU(inplace=True)}


def _shortcut(pattern: Pattern, inputs: int, outputs: int, stride: int) -> nn.Module:
    """What carries a block's input to its output (He et al. 2015, section 3.3, options A and B)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if pattern.shortcut == "pad":
        assert outputs >= inputs, "zero padding can only add channels"
        return Pad(outputs - inputs, stride)
    conv = nn.Conv2d(inputs, outputs, 1, stride, bias=not pattern.norm)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs)) if pattern.norm else nn.Sequential(conv)


def _block(pattern: Pattern, inputs: int, channels: int, stride: int) -> nn.Module:
    """A chain of layers, bypassed by a shortcut or not; the stride stands on the first 3x3."""
    strided = next(number for number, (kernel, _) in enumerate(pattern.block, 1) if kernel == 3)
    chain: dict[str, nn.Module] = {}
    width = inputs
    for number, (kernel, multiple) in enumerate(pattern.block, 1):
        chain |= _layer(
            pattern, number, width, channels * multiple, kernel, stride if number == strided else 1
        )
        width = channels * multiple
    if pattern.shortcut is None:
        return nn.Sequential(OrderedDict(chain))
    chain["downsample"] = _shortcut(
        pattern, inputs, width, stride
    )  # torchvision's name, even for the identity
    return Residual(OrderedDict(chain))


def _body(pattern: Pattern) -> tuple[dict[str, nn.Module], int]:
    """Stem and stages by name in the order they are applied, and the channels that leave them."""
    parts: dict[str, nn.Module] = {}
    width = 3
    if stem := pattern.stem:
        parts |= _layer(pattern, 1, width, stem.channels, stem.kernel, stem.stride)
        if stem.pool:
            parts["maxpool"] = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        width = stem.channels
    for number, (depth, channels) in enumerate(zip(pattern.depths, pattern.channels, strict=True), 1):
        blocks: list[nn.Module] = []
        for position in range(depth):
            opens = position == 0 and number > 1 and pattern.halving == "stride"
            blocks.append(_block(pattern, width, channels, stride=2 if opens else 1))
            width = channels * pattern.block[-1][1]
        if pattern.halving == "pool":
            blocks.append(nn.MaxPool2d(kernel_size=2, stride=2))
        parts[f"layer{number}"] = nn.Sequential(*blocks)
    if pattern.flat:
        layers = [m for part in parts.values() for m in part.modules() if not list(m.children())]
        parts = {f"features.{i}": layer for i, layer in enumerate(layers)}
    return parts, width


def _top(pattern: Pattern, channels: int, classes: int) -> dict[str, nn.Module]:
    """Pool, hidden layers and head, by name in the order they are applied; the head comes last."""
    parts: dict[str, nn.Module] = {"avgpool": nn.AdaptiveAvgPool2d(pattern.grid), "flatten": nn.Flatten()}
    width = channels * pattern.grid**2
    if not pattern.hidden:
        return parts | {"dropout": nn.Dropout(pattern.dropout), "fc": nn.Linear(width, classes)}
    row: list[nn.Module] = []
    for hidden in pattern.hidden:
        row += [nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Dropout(pattern.dropout)]
        width = hidden
    row.append(nn.Linear(width, classes))
    return parts | {f"classifier.{i}": layer for i, layer in enumerate(row)}


class ConvNet(nn.Module):
    """The net that a `Pattern` describes.

    Takes pictures (N, 3, H, W), gives logits (N, classes). H and W are free: the pool adapts, though VGG needs
    at least 32 so that five halvings leave a pixel.

    `embed_dim`: width of the features that the head sees. `head_name`: the head's name in the state_dict,
    `fc` or `classifier.6`.
    """

    def __init__(self, pattern: Pattern, classes: int):
        super().__init__()
        self.pattern = pattern
        body, channels = _body(pattern)
        parts = body | _top(pattern, channels, classes)
        *self._path, self.head_name = parts  # dotted names in the order they are applied
        for name, part in parts.items():
            row, _, leaf = name.rpartition(".")
            if row and row not in self._modules:
                self.add_module(row, nn.Sequential())
            self.get_submodule(row).add_module(leaf, part)
        self.embed_dim: int = self.head.in_features
        self._initialise()

    @property
    def head(self) -> nn.Linear:
        """The last Linear, (N, embed_dim) to (N, classes)."""
        return self.get_submodule(self.head_name)

    def embed(self, x: Tensor) -> Tensor:
        """Features in front of the head: (N, 3, H, W) to (N, embed_dim), pooled or VGG's second hidden layer."""
        for name in self._path:
            x = self.get_submodule(name)(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Logits: (N, 3, H, W) to (N, classes)."""
        return self.head(self.embed(x))

    def reset_head(self, classes: int) -> None:
        """Put a freshly initialised head for `classes` classes in the place of the old one, same device and dtype."""
        like = self.head.weight
        head = nn.Linear(self.embed_dim, classes, device=like.device, dtype=like.dtype)
        self._initialise_linear(head)
        self.set_submodule(self.head_name, head)

    def _initialise(self) -> None:
        """He et al. 2015, arXiv:1502.01852, equation 15, by fan-out; norms start as the identity, as torch has them."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                self._initialise_linear(module)
            elif isinstance(module, Residual) and self.pattern.zero_init:
                nn.init.zeros_(module.get_submodule(f"bn{len(self.pattern.block)}").weight)

    def _initialise_linear(self, linear: nn.Linear) -> None:
        if self.pattern.linear_std is not None:
            nn.init.normal_(linear.weight, std=self.pattern.linear_std)
            nn.init.zeros_(linear.bias)
