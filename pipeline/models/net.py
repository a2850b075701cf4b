"""From a `Pattern` to modules.

Parameter names and initialisation are torchvision's: a state_dict goes both ways with strict=True, and one
seed gives the same weights. The names come from one definition. A net is a sequence of parts under dotted
names, applied in order; a block is a chain of named layers. Where no shortcut leaves the chain, its layers
may as well be numbered in one row, and that is all that VGG's `features.N` is.
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.pattern import Pattern


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


class GridPool(nn.AdaptiveAvgPool2d):
    """Average pool to grid x grid positions, (N, C, H, W) to (N, C, grid, grid).

    Where the grid divides H and W it is a plain average pool, whose backward pass on a GPU is deterministic
    and that of the adaptive one, with the same values, is not. At grid x grid there is nothing to do.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % self.output_size or width % self.output_size:
            return super().forward(x)
        kernel = (height // self.output_size, width // self.output_size)
        return x if kernel == (1, 1) else F.avg_pool2d(x, kernel)


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
    """Convolution, norm, ReLU by name; odd kernels, padded so that stride 1 keeps the size."""
    bias = pattern.bias or not pattern.norm
    layer: dict[str, nn.Module] = {
        f"conv{number}": nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)
    }
    if pattern.norm:
        layer[f"bn{number}"] = nn.BatchNorm2d(outputs)
    layer[f"relu{number}"] = nn.ReLU(inplace=True)
    return layer


def _shortcut(pattern: Pattern, inputs: int, outputs: int, stride: int) -> nn.Module:
    """What carries a block's input to its output (He et al. 2015, section 3.3, options A and B)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if pattern.shortcut == "pad":
        assert outputs >= inputs, "zero padding can only add channels"
        return Pad(outputs - inputs, stride)
    conv = nn.Conv2d(inputs, outputs, 1, stride, bias=not pattern.norm)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs)) if pattern.norm else nn.Sequential(conv)


def _block(pattern: Pattern, inputs: int, channels: int, stride: int) -> nn.Sequential:
    """A chain of layers, bypassed by a shortcut or not; the stride stands on the first 3x3."""
    strided = [kernel for kernel, _ in pattern.block].index(3) + 1
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
    """Stem and stages, by name in the order they are applied, and the channels that leave them."""
    parts: dict[str, nn.Module] = {}
    width = 3
    if stem := pattern.stem:
        parts |= _layer(pattern, 1, width, stem.channels, stem.kernel, stem.stride)
        if stem.pool:
            parts["maxpool"] = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        width = stem.channels
    for number, (depth, channels) in enumerate(zip(pattern.depths, pattern.channels, strict=True), 1):
        row: list[nn.Module] = []
        for position in range(depth):
            halves = pattern.halving == "stride" and number > 1 and position == 0
            row.append(_block(pattern, width, channels, stride=2 if halves else 1))
            width = channels * pattern.block[-1][1]
        if pattern.halving == "pool":
            row.append(nn.MaxPool2d(kernel_size=2, stride=2))
        parts[f"layer{number}"] = nn.Sequential(*row)
    if pattern.flat:
        layers = [
            module for part in parts.values() for module in part.modules() if not list(module.children())
        ]
        parts = {f"features.{i}": layer for i, layer in enumerate(layers)}
    return parts, width


def _top(pattern: Pattern, channels: int, classes: int) -> dict[str, nn.Module]:
    """Pool, hidden layers and head, by name in the order they are applied; the head comes last."""
    # Over all positions the adaptive pool is a mean, and as deterministic.
    pool = GridPool(pattern.grid) if pattern.grid > 1 else nn.AdaptiveAvgPool2d(1)
    parts: dict[str, nn.Module] = {"avgpool": pool, "flatten": nn.Flatten()}
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

    Takes pictures (N, 3, H, W), gives logits (N, classes). H and W are free, since the pool adapts; VGG
    needs 32 or more, so that five halvings leave a position.

    `embed_dim` is the width of the features that the head sees, `head_name` the head's name in the
    state_dict: `fc` or `classifier.6`; `stages` names the modules that end a stage.
    """

    def __init__(self, pattern: Pattern, classes: int):
        super().__init__()
        self.pattern = pattern
        body, channels = _body(pattern)
        parts = body | _top(pattern, channels, classes)
        *self._path, self.head_name = parts  # dotted names in the order they are applied
        pools = [name for name, part in body.items() if isinstance(part, nn.MaxPool2d)]
        self.stages = pools if pattern.flat else [name for name in body if name.startswith("layer")]
        for name, part in parts.items():
            row, _, leaf = name.rpartition(".")
            if row and row not in self._modules:
                self.add_module(row, nn.Sequential())
            self.get_submodule(row).add_module(leaf, part)
        self.embed_dim = self.head.in_features
        self._initialise()

    @property
    def head(self) -> nn.Linear:
        """The last Linear, (N, embed_dim) to (N, classes)."""
        return self.get_submodule(self.head_name)

    def embed(self, x: Tensor) -> Tensor:
        """The features in front of the head, (N, 3, H, W) to (N, embed_dim): pooled, or VGG's last hidden
        layer. In training mode they have been through dropout, where there is any."""
        for name in self._path:
            x = self.get_submodule(name)(x)
        return x

    def depths(self, x: Tensor) -> list[Tensor]:
        """The output of each stage, averaged over positions, (N, C_stage), and then what `embed` gives."""
        found = []
        for name in self._path:
            x = self.get_submodule(name)(x)
            if name in self.stages:
                found.append(x.mean((2, 3)))
        return [*found, x]

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (N, 3, H, W) to (N, classes)."""
        return self.head(self.embed(x))

    def reset_head(self, classes: int) -> None:
        """Put a freshly initialised head in the place of the old one, on its device and of its dtype."""
        old = self.head.weight
        head = nn.Linear(self.embed_dim, classes, device=old.device, dtype=old.dtype)
        self._initialise_linear(head)
        self.set_submodule(self.head_name, head)

    def _initialise(self) -> None:
        """Convolutions by He et al. 2015 (arXiv:1502.01852, section 2.2), fan-out, or N(0, conv_std^2); norms
        as identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if self.pattern.conv_std is None:
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                else:
                    nn.init.normal_(module.weight, std=self.pattern.conv_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                self._initialise_linear(module)
            elif isinstance(module, Residual) and self.pattern.zero_init:
                nn.init.zeros_(module.get_submodule(f"bn{len(self.pattern.block)}").weight)

    def _initialise_linear(self, linear: nn.Linear) -> None:
        """Weights N(0, linear_std^2) and biases 0, or as torch made them."""
        if self.pattern.linear_std is not None:
            nn.init.normal_(linear.weight, std=self.pattern.linear_std)
            nn.init.zeros_(linear.bias)
