"""What a net costs: its parameters, and the multiply-adds of one picture."""

import torch
from torch import Tensor, nn
from torch.func import functional_call


def cost(model: nn.Module, size: int) -> dict[str, int]:
    """Count a net's parameters, and its multiply-adds on one 3 x size x size picture.

    Returns {'parameters', 'macs'}. The multiply-adds are those of convolutions and linear layers without
    biases, as He et al. 2015 (table 1, "FLOPs") and torchvision's weights count them; a count of
    floating-point operations is twice as high. The model may lie on any device, `meta` too, and is left as
    it was: the pass runs on meta tensors, so it takes neither arithmetic nor memory.
    """
    macs = 0

    def count(layer: nn.Conv2d | nn.Linear, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        # Each weight is used once at each output position: (N, C, H, W) has H * W of them, (N, C) has one.
        macs += layer.weight.numel() * output.shape[2:].numel()

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    # Two pictures: batch norm refuses to train on a single value per channel.
    pictures = torch.empty(2, 3, size, size, dtype=layers[0].weight.dtype, device="meta")
    try:
        with torch.no_grad():
            functional_call(model, shapes, (pictures,))
    finally:
        for hook in hooks:
            hook.remove()
    return {"parameters": sum(parameter.numel() for parameter in model.parameters()), "macs": macs}
