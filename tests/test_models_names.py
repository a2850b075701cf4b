"""What is a name, what is none, and which switches a name has a place for."""

import pytest
import torch
from torch import nn

from pipeline.config import UserError
from pipeline.models import ConvNet, build, names


def test_every_name_builds():
    listed = names()
    assert len(listed) == len(set(listed))
    imagenet = [*(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)), "plain18", "plain34"]
    vgg = [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")]
    assert {*imagenet, *vgg, "plain20", "resnet20", "plain56", "resnet56", "resnet110"} <= set(listed)
    with torch.device("meta"):
        for name in listed:
            if not name.endswith("1202"):  # seconds each
                assert isinstance(build(name, 10), ConvNet)


@pytest.mark.parametrize(
    ("family", "depth", "blocks"), [("resnet", 8, 1), ("resnet", 26, 4), ("plain", 38, 6)]
)
def test_depth_counts_the_weighted_layers(family, depth, blocks):
    """6n + 2: n blocks of two layers in three stages, the stem and the head; n = `blocks`."""
    net = build(f"{family}{depth}", 10, width=0.125)
    assert [len(net.get_submodule(f"layer{stage}")) for stage in (1, 2, 3)] == [blocks] * 3
    weighted = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(weighted) == depth == 6 * blocks + 2


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("resnet19", "resnet18"), ("ResNet50", "resnet50"), ("vgg16bn", "vgg16_bn"), ("plain35", "plain34")],
)
def test_unknown_name_names_the_nearest(name, nearest):
    with pytest.raises(UserError) as caught:
        build(name, 10)
    message = str(caught.value)
    assert repr(name) in message
    assert f" {nearest}" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "name", ["", "efficientnet", "resnet", "resnet2", "resnet020", "plain50", "plain152", "resnet²"]
)
def test_what_is_no_name(name):
    with pytest.raises(UserError, match=r"model\.name: unknown name"):
        build(name, 10)


@pytest.mark.parametrize(
    ("name", "classes", "switches", "says"),
    [
        ("resnet8", 0, {}, "classes=0"),
        ("resnet8", 10, {"width": 0.0}, "model.width=0.0"),
        ("resnet8", 10, {"width": float("nan")}, "model.width=nan"),
        ("resnet8", 10, {"dropout": 1.5}, "model.dropout=1.5"),
        ("resnet8", 10, {"shortcut": "conv"}, "'projection' or 'pad'"),
        ("plain8", 10, {"shortcut": "pad"}, "plain8 has no shortcuts"),
        ("vgg11", 10, {"zero_init": True}, "vgg11 has no shortcuts"),
        ("resnet8", 10, {"zero_init": True, "norm": False}, "model.norm=False"),
    ],
)
def test_impossible_switches_are_users_mistakes(name, classes, switches, says):
    with pytest.raises(UserError) as caught:
        build(name, classes, **switches)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
