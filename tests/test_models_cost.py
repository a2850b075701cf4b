"""Parameters and multiply-adds against torchvision's metadata and the paper's table."""

import copy

import pytest
import torch
from torchvision import models

from pipeline.models import build, cost

RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
VGGS = [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")]


@pytest.mark.parametrize("name", RESNETS + VGGS)
def test_cost_is_that_of_torchvisions_weights(name):
    """Exact parameter counts, and multiply-adds to the last digit given, from the weights' metadata."""
    meta = models.get_model_weights(name).DEFAULT.meta
    with torch.device("meta"):
        found = cost(build(name, 1000), 224)
    assert found["parameters"] == meta["num_params"]
    original = models.get_model_weights(name)["IMAGENET1K_V1"]  # at 224; later ones may be larger
    assert found["macs"] / 1e9 == pytest.approx(original.meta["_ops"], abs=6e-4)


# He et al. 2015, table 6 ("# params", millions) and, by hand from the layers of section 4.2, multiply-adds.
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cost_of_small_nets_is_the_papers(depth, millions):
    n = (depth - 2) // 6
    found = cost(build(f"resnet{depth}", 10), 32)
    assert round(found["parameters"] / 1e6, 2 if depth < 110 else 1) == millions
    stem, head = 32 * 32 * 9 * 3 * 16, 64 * 10
    full = 32 * 32 * 9 * 16 * 16  # a layer between equal channels, the same in each stage
    assert found["macs"] == stem + head + 2 * n * full + 2 * ((2 * n - 1) * full + full // 2)


def test_cost_of_resnet20():
    """40.6 million multiply-adds by padding; the 40.8 often quoted count the two projections of option B."""
    assert cost(build("resnet20", 10), 32) == {"parameters": 269_722, "macs": 40_551_040}
    projections = 16 * 32 + 32 * 64  # weights
    by_projection = cost(build("resnet20", 10, shortcut="projection"), 32)
    assert by_projection["macs"] == 40_551_040 + 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64 == 40_813_184
    assert by_projection["parameters"] == 269_722 + projections + 2 * (32 + 64)


def test_cost_leaves_the_net_alone():
    net = build("resnet8", 10).train()
    before = copy.deepcopy(net.state_dict())
    assert cost(net, 8)["macs"] > 0
    assert net.training
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(value.device.type == "cpu" for value in net.state_dict().values())
    assert not any(module._forward_hooks for module in net.modules())
