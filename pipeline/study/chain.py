"""A net as the lectures write it, z₀ → z₁ → … → z_N: stem, blocks, head, and copies to measure on."""

import copy
from collections.abc import Callable

from torch import Tensor, nn

from pipeline.models import ConvNet
from pipeline.models.net import Residual

Function = Callable[[Tensor], Tensor]


class Chain:
    """z₀ = stem(x), zᵢ = blockᵢ(zᵢ₋₁) for i = 1 … N, logits = head(z_N)."""

    def __init__(self, model: ConvNet):
        assert not model.pattern.flat, "a chain is of blocks"
        children = dict(model.named_children())
        stages = [name for name in children if name.startswith("layer")]
        order = list(children)
        first, last = order.index(stages[0]), order.index(stages[-1])
        self.stem = nn.Sequential(*(children[name] for name in order[:first]))
        self.blocks = [block for name in stages for block in children[name]]
        self.head = nn.Sequential(*(children[name] for name in order[last + 1 :]))
        self.stages = [sum(len(children[name]) for name in stages[:i]) for i in range(len(stages) + 1)]
        """Block numbers, from 0, where a stage begins; then N."""

    @property
    def parts(self) -> list[nn.Module]:
        """Stem, N blocks, head."""
        return [self.stem, *self.blocks, self.head]

    def from_to(self, first: int, last: int) -> Function:
        """The map from z_first to z_last."""

        def suffix(z: Tensor) -> Tensor:
            for block in self.blocks[first:last]:
                z = block(z)
            return z

        return suffix

    def outputs(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """z₀ … z_N and the logits."""
        found = [self.stem(images)]
        for block in self.blocks:
            found.append(block(found[-1]))
        return found, self.head(found[-1])


def before_relu(block: nn.Sequential) -> Function:
    """A block without its last ReLU: F(z), or F(z) + shortcut(z) of a residual one."""
    layers = list(block)
    shortcut = layers.pop() if isinstance(block, Residual) else None
    body = nn.Sequential(*layers[:-1])
    return body if shortcut is None else lambda z: body(z) + shortcut(z)


def by_batch(model: ConvNet) -> ConvNet:
    """A copy that is normalised by each batch's own statistics, as in training, and keeps none of them."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
        elif isinstance(module, nn.ReLU):
            module.inplace = False
    return model


def by_fixed(model: ConvNet, images: Tensor) -> ConvNet:
    """A copy that is normalised by the statistics of these pictures, held fixed: each picture has a Jacobian
    of its own."""
    model = copy.deepcopy(model).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    model(images)
    return model.eval()
