"""The optimizer's parameter groups, its state by name, and the learning rate as a function of the step."""

import math

import torch
from torch import Tensor, nn

from pipeline.config import Optimizer
from pipeline.train.lars import LARS


def parameter_groups(
    model: nn.Module, weight_decay: float, trust: float | None = None, backbone: float | None = None
) -> list[dict]:
    """Weights of convolutions and linear layers decay; biases and norms don't (Goyal et al. 2017, 5.3).

    Nor have these a trust ratio under LARS, as in MLPerf's reference: the ratio follows the length of the
    weights, and a bias starts at zero. Told apart by the module that owns them, never by name: "bn" is not
    in ``downsample.1``.

    :param backbone: ``lr_scale`` of all but the head; none = one rate, and two groups, for the whole model.
    """
    head = None if backbone is None else model.get_submodule(model.head_name)
    groups = [
        {"params": [], "weight_decay": decay, "trust": ratio, "lr_scale": scale}
        for scale in ([1.0] if head is None else [backbone, 1.0])
        for decay, ratio in ((weight_decay, trust), (0.0, None))
    ]
    for module in model.modules():
        heavy = isinstance(module, (nn.modules.conv._ConvNd, nn.Linear))
        for name, parameter in module.named_parameters(recurse=False):
            spared = not (heavy and name == "weight")
            groups[2 * (module is head) + spared]["params"].append(parameter)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    return [group for group in groups if group["params"]]


def set_rate(optimizer, lr: float) -> None:
    """The step's learning rate, in every group by its own scale.

    :param optimizer: torch's, or DeepSpeed's around it.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def build_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.Optimizer:
    """The config's optimizer. It must not be called in a step that is skipped: a fused SGD whose first step a
    GradScaler skips by itself leaves its momentum uninitialised (torch 2.15)."""
    groups = parameter_groups(model, config.weight_decay, config.trust, config.backbone_lr_scale)
    if config.name == "lars":
        return LARS(groups, config.lr, config.momentum)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, config.lr, betas=tuple(config.betas), fused=True)
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        fused=True,
    )


def named_state(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]) -> dict[str, dict]:
    """The optimizer's state by parameter name; what a checkpoint holds, whichever engine wrote it.

    Its tensors are the optimizer's own, not copies: ``momentum_buffer`` of SGD and LARS; ``exp_avg``,
    ``exp_avg_sq`` and ``step`` of AdamW. Empty before a parameter's first step.
    """
    return {name: dict(optimizer.state.get(parameter, {})) for name, parameter in parameters.items()}


def load_named_state(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], state: dict[str, dict]
) -> None:
    """Puts copies of ``named_state`` back, on the parameters' devices."""
    names = {parameter: name for name, parameter in parameters.items()}
    groups = optimizer.state_dict()["param_groups"]
    numbered = {
        number: parameter
        for group, of in zip(groups, optimizer.param_groups, strict=True)
        for number, parameter in zip(group["params"], of["params"], strict=True)
    }
    found = {
        number: {key: _lying_as(parameter, value) for key, value in state[names[parameter]].items()}
        for number, parameter in numbered.items()
        if state[names[parameter]]
    }
    optimizer.load_state_dict({"state": found, "param_groups": groups})


def _lying_as(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """A copy of the state ``value`` in its parameter's memory format.

    A checkpoint of another engine, or of a run without ``channels_last``, may have it in another one, and
    torch 2.15's fused kernels on the CPU read memory in its order, whatever the strides say.
    """
    if value.shape != parameter.shape:  # AdamW's step, ()
        return value.clone()
    return torch.empty_like(parameter).copy_(value)


def peak_rate(config: Optimizer, batch: int) -> float:
    """The highest learning rate at a global batch: lr, or lr x batch / lr_batch (Goyal et al. 2017, 2.1)."""
    return config.lr if config.lr_batch is None else config.lr * batch / config.lr_batch


def learning_rate(config: Optimizer, step: int, steps: int, steps_per_epoch: float, batch: int) -> float:
    """Of step ``step`` (0-based) of ``steps`` at a global batch: linear warm-up, then the schedule.

    Cosine: Loshchilov and Hutter 2016, equation 5, without restarts. Step: Goyal et al. 2017, 5.1.
    """
    peak = peak_rate(config, batch)
    warmup = min(config.warmup * steps_per_epoch, steps)
    if step < warmup:
        return peak * min(1.0, (step + 1) / warmup)
    share = (step - warmup) / max(1.0, steps - warmup)
    if config.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * share))
    if config.schedule == "linear":
        return peak * (1 - share)
    # No milestones: constant. 1e-9: an epoch that begins with a step has begun, whatever the rounding.
    passed = sum(step / steps_per_epoch + 1e-9 >= milestone for milestone in config.milestones)
    return peak / 10**passed
