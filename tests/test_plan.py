"""launch.plan: counts against what torch does, laws, and the door."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from pipeline.config import TrainConfig, UserError, load
from pipeline.models import build
from pipeline.models.cost import layers, saved
from pipeline.plan import brief

RESNET50 = "configs/imagenet/resnet50.yaml"


def config(*words: str) -> TrainConfig:
    return load(TrainConfig, RESNET50, ["data.index=nowhere", *words])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["resnet8", "vgg11_bn"])
def test_saved_bytes_are_those_of_a_real_pass(name, dtype):
    net = build(name, 10, width=0.125, dropout=0.0)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = net(torch.randn(3, 3, 32, 32, dtype=dtype))
        nn.functional.cross_entropy(logits.float(), torch.zeros(3, dtype=torch.long))
    own = {tensor.untyped_storage()._cdata for tensor in [*net.parameters(), *net.buffers()]}
    measured = sum(storage.nbytes() for address, storage in kept.items() if address not in own)
    assert saved(net, 32, dtype).of(3) == measured


def test_saved_bytes_by_hand():
    """A convolution and a batch norm save their inputs, a ReLU its output, cross-entropy log-probabilities."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    picture, grid, label = 3 * 10 * 10, 8 * 8 * 8, 8
    found = saved(net, 10, torch.float32)
    assert found.picture == 4 * (picture + 3 * grid) + label
    assert found.batch >= 4 * 2 * 8  # mean and deviation of each channel


def test_layers_hold_all_parameters():
    net = build("resnet20", 10)
    found = layers(net, 32)
    assert sum(layer.parameters for layer in found) == sum(each.numel() for each in net.parameters())
    assert found[0].macs == 32 * 32 * 9 * 3 * 16
    assert found[1].macs == 0
    assert found[-1].macs == 64 * 10


def test_brief():
    lines = brief(config("train.batch=1024", "data.train=train"), 32)
    text = "\n".join(lines)
    assert "25.6 M parameters" in text
    assert "112,603 of 1,024 pictures, 32 on each of 32 ranks" in text
    assert "198 MB from every rank" in text  # 2 x 31/32 x 4 x 25,557,032 bytes, and batch norm's


def test_brief_tells_a_batch_that_cannot_be_split():
    with pytest.raises(UserError, match=r"train.batch: 256 pictures cannot be split over 7 ranks"):
        brief(config(), 7)
