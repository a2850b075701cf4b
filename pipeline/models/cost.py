"""What a net costs: its parameters, the multiply-adds of one picture, and what backward needs of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call


@dataclass(frozen=True)
class Layer:
    """A module with parameters of its own; ``macs`` are those of one picture."""

    parameters: int
    macs: int


@dataclass(frozen=True)
class Saved:
    """Bytes that autograd keeps from forward to backward.

    :ivar picture: for each picture. :ivar batch: once, however many: weights in the narrow type, statistics.
    """

    picture: int
    batch: int

    def of(self, pictures: int) -> int:
        return pictures * self.picture + self.batch


def cost(model: nn.Module, size: int) -> dict[str, int]:
    """Count a net's parameters, and its multiply-adds on one 3 x size x size picture.

    Returns {'parameters', 'macs'}. The multiply-adds are those of convolutions and linear layers without
    biases, as He et al. 2015 (table 1, "FLOPs") and torchvision's weights count them; a count of
    floating-point operations is twice as high. The model may lie on any device, `meta` too, and is left as
    it was: the pass runs on meta tensors, so it takes neither arithmetic nor memory.
    """
    macs = sum(layer.macs for layer in layers(model, size))
    return {"parameters": sum(parameter.numel() for parameter in model.parameters()), "macs": macs}


def layers(model: nn.Module, size: int) -> list[Layer]:
    """The modules that have parameters, in the order of the forward pass, each counted as in ``cost``."""
    found = []

    def count(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # Each weight is used once at each output position: (N, C, H, W) has H * W of them, (N, C) has one.
        heavy = isinstance(module, nn.Conv2d | nn.Linear)
        macs = module.weight.numel() * output.shape[2:].numel() if heavy else 0
        found.append(Layer(sum(parameter.numel() for parameter in module.parameters()), macs))

    owners = [module for module in model.modules() if list(module.parameters(recurse=False))]
    hooks = [module.register_forward_hook(count) for module in owners]
    try:
        with torch.no_grad():
            # Two pictures: batch norm refuses to train on a single value per channel.
            _on_meta(model, size, 2)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def saved(model: nn.Module, size: int, dtype: torch.dtype) -> Saved:
    """What autograd keeps of a training pass under autocast to ``dtype``, without the fp32 weights.

    Counted, not estimated: every storage that an operation saves for its backward pass, once. Not in it are
    a kernel's own workspace and gradients on their way.
    """
    two, four = (_saved_bytes(model, size, dtype, pictures) for pictures in (2, 4))
    picture = (four - two) // 2
    return Saved(picture, two - 2 * picture)


def _saved_bytes(model: nn.Module, size: int, dtype: torch.dtype, pictures: int) -> int:
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Held, so that no later storage gets the same address.
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.enable_grad(), _training(model), saved_tensors_hooks(keep, lambda tensor: tensor):
        logits, own = _on_meta(model, size, pictures, dtype)
        labels = torch.zeros(pictures, dtype=torch.long, device="meta")
        nn.functional.cross_entropy(logits.float(), labels)
    mine = {tensor.untyped_storage()._cdata for tensor in own.values()}
    return sum(storage.nbytes() for address, storage in kept.items() if address not in mine)


def _on_meta(
    model: nn.Module, size: int, pictures: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of a forward pass on meta tensors, and the parameters and buffers that it used.

    Autocast does nothing there (torch 2.15), so weights and pictures are cast as it would cast them.
    """
    own = {
        name: torch.empty_like(tensor, device="meta", requires_grad=tensor.requires_grad)
        for name, tensor in (dict(model.named_parameters()) | dict(model.named_buffers())).items()
    }
    heavy = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    cast = {name: tensor.to(dtype) for name, tensor in own.items() if name.rpartition(".")[0] in heavy}
    images = torch.empty(pictures, 3, size, size, dtype=dtype, device="meta")
    return functional_call(model, own | cast, (images,)), own


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    before = model.training
    model.train()
    try:
        yield
    finally:
        model.train(before)
