"""The optimizer's parameter groups and the learning rate as a function of the step."""

import math

import torch
from torch import nn

from pipeline.config import Optimizer


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weights of convolutions and linear layers decay; biases and norms don't (Goyal et al. 2017, 5.3).

    Told apart by the module that owns them, never by name: "bn" is not in ``downsample.1``.
    """
    decayed, free = [], []
    for module in model.modules():
        heavy = isinstance(module, (nn.modules.conv._ConvNd, nn.Linear))
        for name, parameter in module.named_parameters(recurse=False):
            (decayed if heavy and name == "weight" else free).append(parameter)
    assert len(decayed) + len(free) == len(list(model.parameters()))
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, config: Optimizer, *, scaled: bool) -> torch.optim.Optimizer:
    """:param scaled: steps may be skipped because scaled fp16 gradients overflowed."""
    return torch.optim.SGD(
        parameter_groups(model, config.weight_decay),
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        # Fused SGD leaves its momentum uninitialised when the very first step is skipped (torch 2.15).
        fused=not scaled,
    )


def named_state(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]) -> dict[str, dict]:
    """The optimizer's state by parameter name; what a checkpoint holds, whichever engine wrote it."""
    return {name: dict(optimizer.state.get(parameter, {})) for name, parameter in parameters.items()}


def load_named_state(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], state: dict[str, dict]
) -> None:
    """Puts ``named_state`` back, on the parameters' devices."""
    names = {parameter: name for name, parameter in parameters.items()}
    groups = optimizer.state_dict()["param_groups"]
    numbers = {
        number: names[parameter]
        for group, of in zip(groups, optimizer.param_groups, strict=True)
        for number, parameter in zip(group["params"], of["params"], strict=True)
    }
    found = {number: state[name] for number, name in numbers.items() if state[name]}
    optimizer.load_state_dict({"state": found, "param_groups": groups})


def learning_rate(config: Optimizer, step: int, steps: int, steps_per_epoch: float) -> float:
    """Of step ``step`` (0-based) of ``steps``: linear warm-up, then the schedule down to zero.

    Cosine: Loshchilov and Hutter 2016, equation 5, without restarts.
    """
    warmup = min(config.warmup * steps_per_epoch, steps)
    if step < warmup:
        return config.lr * min(1.0, (step + 1) / warmup)
    share = (step - warmup) / max(1.0, steps - warmup)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * share))
    if config.schedule == "linear":
        return config.lr * (1 - share)
    return config.lr
