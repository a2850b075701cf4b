"""One pattern of convolutional network; VGG, plain and residual nets are settings of it.

    picture ─► stem ─► stage 1 ─► stage 2 ─► … ─► average pool ─► hidden layers ─► head ─► logits

- A **layer** is a convolution, a batch norm if there is one, and a ReLU.
- A **block** is a short chain of layers: one 3x3 (VGG), two 3x3, or the bottleneck 1x1, 3x3, 1x1.
- A **stage** is a row of blocks at one resolution. From one stage to the next the resolution halves and
  the channels double, so that every layer costs about the same (He et al. 2015, section 3.3).
- The **shortcut** is the one thing that makes a net residual: a block's input is added to its output
  before the last ReLU, y = relu(F(x) + shortcut(x)) (He et al. 2015, equations 1 and 2). Without it the
  same net is plain.

What the families set differently:

    |             | VGG (table 1, A B D E)    | ImageNet (table 1)       | 32x32 (section 4.2)      |
    |-------------|---------------------------|--------------------------|--------------------------|
    | stem        | none                      | 7x7/2, 64; max pool 3/2  | 3x3, 16                  |
    | channels    | 64 128 256 512 512        | 64 128 256 512 (x4 when  | 16 32 64                 |
    |             |                           | bottleneck)              |                          |
    | halving     | max pool ends each stage  | stride 2 opens stages 2+ | stride 2 opens stages 2+ |
    | shortcut    | none                      | projection (option B)    | zero padding (option A)  |
    | hidden      | two of 4096               | none                     | none                     |

Sources: Simonyan & Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
arXiv:1409.1556, table 1 and section 2; He et al. 2015, "Deep Residual Learning for Image Recognition",
arXiv:1512.03385, table 1 and sections 3.3, 3.4 and 4.2. A bottleneck's stride stands on its 3x3 layer, as
in torchvision (ResNet v1.5), not on its first 1x1 as in the paper.

This file is the whole description; `net` turns a `Pattern` into modules.
"""

from dataclasses import dataclass, replace
from typing import Literal

Block = tuple[tuple[int, int], ...]  # of each layer: kernel, and channels as a multiple of the stage's

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
    """Everything that tells one net of the family from another; the file's docstring explains the words."""

    depths: tuple[int, ...]
    """Blocks in each stage."""
    channels: tuple[int, ...]
    """Channels of each stage, before a bottleneck's x4."""
    block: Block
    """The layers of a block."""
    stem: Stem | None
    """The layer in front; None: the first stage sees the picture itself."""
    shortcut: Literal["projection", "pad"] | None
    """None: a plain net. Else a residual one; where shapes differ, the shortcut is a strided 1x1 convolution
    (option B), or subsampling with zeros for the new channels, which has no parameters (option A)."""
    halving: Literal["stride", "pool"] = "stride"
    """How resolution halves: stride 2 opens every stage but the first, or a 2x2 max pool ends every stage."""
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
    """Fully connected weights start as N(0, linear_std^2), biases at 0; None: torch's own for nn.Linear."""
    conv_std: float | None = None
    """Convolutions start as N(0, conv_std^2), whatever their width; None: by He et al., from the fan-out."""
    flat: bool = False
    """Number the stages' layers in one row, `features.N`, instead of `layerK.I.convJ`. Only a net that is one
    chain can be written so, hence never one with shortcuts."""

    def __post_init__(self) -> None:
        assert len(self.depths) == len(self.channels)
        assert not (self.flat and self.shortcut), "a shortcut leaves the chain: its block needs a name"
        residual_norm = self.shortcut is not None and self.norm
        assert residual_norm or not self.zero_init, "only a residual block's norm may start at 0"

    @property
    def stride(self) -> int:
        """Pixels of a picture's side to one position behind the last stage."""
        halvings = len(self.depths) - (self.halving == "stride")
        stem = self.stem.stride * (2 if self.stem.pool else 1) if self.stem else 1
        return stem * 2**halvings

    @property
    def smallest(self) -> int:
        """Side of the smallest picture that leaves a position, pixels: a max pool ends with nothing where it
        halves a single one."""
        return 2 ** len(self.depths) if self.halving == "pool" else 1

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


# Simonyan & Zisserman 2014, table 1 and section 3.1.
VGG = Pattern(
    depths=(1, 1, 2, 2, 2),
    channels=(64, 128, 256, 512, 512),
    block=SINGLE,
    stem=None,
    shortcut=None,
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
# He et al. 2015, section 4.2.
SMALL = Pattern(
    depths=(3, 3, 3),
    channels=(16, 32, 64),
    block=BASIC,
    stem=Stem(16, kernel=3),
    shortcut="pad",
)
