"""Finetuning with another learning rate for what was learned before than for the new head."""

import pytest
import torch
import yaml
from conftest import config_tree
from torch import nn

from pipeline.config import Optimizer, TrainConfig, TransferConfig, UserError, load, parse
from pipeline.config.protocol import SHIPPED
from pipeline.models import build
from pipeline.train.optim import (
    build_optimizer,
    load_named_state,
    named_state,
    parameter_groups,
    set_rate,
)

NAMES = ["sgd", "lars", "adamw"]


def network() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet8", 5)


def steps(model: nn.Module, optimizers: dict[torch.optim.Optimizer, float], numbers: range) -> None:
    """Steps with gradients, and a learning rate, that are functions of the step's number.

    :param optimizers: to what each one's rate is multiplied by.
    """
    for number in numbers:
        torch.manual_seed(number)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for optimizer, scale in optimizers.items():
            set_rate(optimizer, scale * 0.1 / (1 + number))
            optimizer.step()


@pytest.mark.parametrize("name", ["resnet50", "vgg11_bn", "plain20"])
def test_groups_part_head_and_backbone(name):
    with torch.device("meta"):
        model = build(name, 7)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 0.1, 0.001, backbone=0.2)
    told = [(group["lr_scale"], group["weight_decay"], group["trust"]) for group in groups]
    assert told == [(0.2, 0.1, 0.001), (0.2, 0.0, None), (1.0, 0.1, 0.001), (1.0, 0.0, None)]
    head = [names[parameter] for group in groups[2:] for parameter in group["params"]]
    assert head == [f"{model.head_name}.weight", f"{model.head_name}.bias"]
    spread = [names[parameter] for group in groups for parameter in group["params"]]
    assert sorted(spread) == sorted(names.values()), "each once"
    # Within a rate, what decays is what decays without one.
    whole = parameter_groups(model, 0.1, 0.001)
    for place, group in enumerate(whole):
        assert {*group["params"]} == {*groups[place]["params"], *groups[place + 2]["params"]}
        assert group["lr_scale"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_it_is_two_optimizers_of_two_rates(name):
    """Every bit: backbone and head as if each had an optimizer of its own."""
    how = Optimizer(name=name, lr=0.1, weight_decay=0.01, trust=0.02)
    ours, theirs = network(), network()
    steps(ours, {build_optimizer(ours, how.model_copy(update={"backbone_lr_scale": 0.1})): 1.0}, range(5))
    groups = parameter_groups(theirs, 0.01, 0.02, backbone=0.1)
    of = {
        "sgd": lambda groups: torch.optim.SGD(groups, 0.1, 0.9, nesterov=True, fused=True),
        "lars": lambda groups: type(build_optimizer(theirs, how))(groups, 0.1, 0.9),
        "adamw": lambda groups: torch.optim.AdamW(groups, 0.1, betas=(0.9, 0.999), fused=True),
    }[name]
    alone = [[{**group, "lr_scale": 1.0} for group in part] for part in (groups[:2], groups[2:])]
    steps(theirs, {of(alone[0]): 0.1, of(alone[1]): 1.0}, range(5))
    for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7, msg=key)
    plain = network()
    steps(plain, {build_optimizer(plain, how): 1.0}, range(5))
    assert torch.equal(plain.fc.weight, ours.fc.weight), "the head's rate is the config's"
    assert not torch.equal(plain.conv1.weight, ours.conv1.weight)


@pytest.mark.parametrize("name", NAMES)
def test_a_continued_run_is_bit_identical(name):
    how = Optimizer(name=name, lr=0.1, weight_decay=0.01, backbone_lr_scale=0.3)
    undisturbed, first, second = network(), network(), network()
    steps(undisturbed, {build_optimizer(undisturbed, how): 1.0}, range(5))
    optimizer = build_optimizer(first, how)
    steps(first, {optimizer: 1.0}, range(2))
    second.load_state_dict(first.state_dict())
    again = build_optimizer(second, how)
    state = named_state(optimizer, dict(first.named_parameters()))
    load_named_state(again, dict(second.named_parameters()), state)
    steps(second, {again: 1.0}, range(2, 5))
    for key, value in undisturbed.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_without_weights_learned_before_it_is_refused(tmp_path):
    tree = config_tree("data/x", "runs", optim__backbone_lr_scale=0.1)
    with pytest.raises(UserError, match=r"^x: optim\.backbone_lr_scale: 0\.1 spares weights .*leave it out"):
        parse(TrainConfig, tree, "x")
    assert parse(TrainConfig, tree | {"model": {"name": "resnet8", "checkpoint": "y"}}, "x")
    file = SHIPPED / "five.yaml"
    assert load(TransferConfig, file, ["finetuned.optim.backbone_lr_scale=0.1"])
    with pytest.raises(UserError, match=r"scratch\.optim\.backbone_lr_scale: 0\.1 .* from scratch"):
        load(TransferConfig, file, ["scratch.optim.backbone_lr_scale=0.1"])
    whole = yaml.safe_load(file.read_text())
    whole["finetuned"]["optim"]["backbone_lr_scale"] = 0
    with pytest.raises(
        UserError, match=r"finetuned\.optim\.backbone_lr_scale: input should be greater than 0"
    ):
        parse(TransferConfig, TransferConfig.completed(whole, tmp_path / "x"), "x")
