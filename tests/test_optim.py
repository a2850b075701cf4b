"""The optimizers, their state, and the learning rate as a function of the step."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Optimizer
from pipeline.models import build
from pipeline.train.optim import build_optimizer, learning_rate, parameter_groups


def test_weight_decay_goes_by_module_not_by_name():
    model = build("resnet50", 10)
    decayed, free = parameter_groups(model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    spared = {names[id(parameter)] for parameter in free["params"]}
    assert "layer1.0.downsample.1.weight" in spared, "a batch norm that has no bn in its name"
    assert {"fc.bias", "bn1.weight", "bn1.bias"} <= spared
    assert {names[id(p)] for p in decayed["params"]} >= {"fc.weight", "conv1.weight"}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert len(names) == len(decayed["params"]) + len(free["params"])


def test_a_skipped_first_step_leaves_no_garbage():
    """fp16 starts with a scale that overflows: the first step is skipped, the second one is the first."""
    model = torch.nn.Linear(4, 4, bias=False)
    before = model.weight.detach().clone()
    config = Optimizer(lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0)
    optimizer = build_optimizer(model, config, scaled=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)
    for value in (float("inf"), 1.0):
        scaler.scale(model.weight.sum())  # the scaler wants to have scaled something
        model.weight.grad = torch.full((4, 4), value)
        scaler.step(optimizer)
        scaler.update()
        if value == float("inf"):
            assert torch.equal(model.weight, before)
    halved = 2.0  # by the overflow
    assert torch.allclose(model.weight, before - 0.1 * 1.0 / halved)


@given(steps=st.integers(1, 2000), warmup=st.floats(0, 3), per_epoch=st.floats(1, 500))
def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero(steps, warmup, per_epoch):
    config = Optimizer(lr=0.5, warmup=warmup)
    rates = [learning_rate(config, step, steps, per_epoch) for step in range(steps)]
    top = int(np.argmax(rates))
    assert max(rates) <= 0.5 + 1e-12
    assert all(a <= b + 1e-12 for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[top:]))
    assert all(rate > 0 for rate in rates)


def test_the_cosine_is_loshchilovs():
    config = Optimizer(lr=1.0)
    assert learning_rate(config, 0, 100, 10) == 1.0
    assert learning_rate(config, 50, 100, 10) == pytest.approx(0.5)
    assert learning_rate(config, 25, 100, 10) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert learning_rate(Optimizer(lr=1.0, warmup=1.0), 4, 100, 10) == pytest.approx(0.5)
