"""The optimizers, their state, and the learning rate as a function of the step."""

import io
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import torchrun
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException

from pipeline.config import Optimizer
from pipeline.models import build
from pipeline.train.lars import LARS, Segment
from pipeline.train.optim import (
    build_optimizer,
    learning_rate,
    load_named_state,
    named_state,
    parameter_groups,
    peak_rate,
)

NAMES = ["sgd", "lars", "adamw"]


def network() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet8", 5).to(memory_format=torch.channels_last)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    """Steps with gradients, and a learning rate, that are functions of the step's number."""
    for number in numbers:
        torch.manual_seed(number)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + number)
        optimizer.step()


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- parameter groups, fused kernels ----------------------------------------------------------------------


def test_weight_decay_goes_by_module_not_by_name():
    model = build("resnet50", 10)
    decayed, free = parameter_groups(model, 0.1, 0.001)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    spared = {names[id(parameter)] for parameter in free["params"]}
    assert "layer1.0.downsample.1.weight" in spared, "a batch norm that has no bn in its name"
    assert {"fc.bias", "bn1.weight", "bn1.bias"} <= spared
    assert {names[id(p)] for p in decayed["params"]} >= {"fc.weight", "conv1.weight"}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert (decayed["trust"], free["trust"]) == (0.001, None)
    assert len(names) == len(decayed["params"]) + len(free["params"])


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_skipped_first_step_leaves_no_garbage(name, scaled):
    """The first gradient overflows: the first step is skipped, the second one is the first."""
    config = Optimizer(name=name, lr=0.1, weight_decay=0.01)
    model, undisturbed = network(), network()
    optimizer = build_optimizer(model, config)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=scaled)
    scaler.scale(torch.zeros(()))  # the scaler wants to have scaled something
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    scaler.unscale_(optimizer)
    scaler.update()  # as the engine does, which does not call the optimizer
    assert equal(model.state_dict(), before)
    steps(model, optimizer, range(3))
    steps(undisturbed, build_optimizer(undisturbed, config), range(3))
    assert equal(model.state_dict(), undisturbed.state_dict())


def test_adamw_is_torchs():
    config = Optimizer(name="adamw", lr=0.1, betas=[0.8, 0.99], weight_decay=0.3)
    ours, theirs = network(), network()
    steps(ours, build_optimizer(ours, config), range(5))
    weights = [p for p in theirs.parameters() if p.ndim > 1]
    others = [p for p in theirs.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}]
    steps(theirs, torch.optim.AdamW(groups, betas=(0.8, 0.99), foreach=False), range(5))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


# --- LARS -------------------------------------------------------------------------------------------------


def test_lars_is_the_papers():
    """Algorithm 1 written down for one layer after another, in float64."""
    config = Optimizer(name="lars", lr=0.1, momentum=0.8, trust=0.02, weight_decay=0.01)
    model, plain = network().double(), network().double()
    steps(model, build_optimizer(model, config), range(5))
    momenta = [torch.zeros_like(parameter) for parameter in plain.parameters()]
    for number in range(5):
        torch.manual_seed(number)
        for w, v in zip(plain.parameters(), momenta, strict=True):
            g = torch.randn_like(w)
            if w.ndim > 1:  # a convolution's or the classifier's weights
                local = 0.02 * w.norm() / (g.norm() + 0.01 * w.norm())
                g = local * (g + 0.01 * w)
            v.mul_(0.8).add_(0.1 / (1 + number) * g)
            w.data.sub_(v)
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_lars_is_timms_while_the_learning_rate_is_constant():
    timm = pytest.importorskip("timm.optim.lars", reason="uv sync --group bench brings timm")
    ours, theirs = network(), network()
    optimizers = (
        LARS(parameter_groups(ours, 1e-2, 0.02), 0.3, 0.9),
        timm.Lars(parameter_groups(theirs, 1e-2), 0.3, 0.9, trust_coeff=0.02, eps=0.0),
    )
    for model, optimizer in zip((ours, theirs), optimizers, strict=True):
        for number in range(5):
            torch.manual_seed(number)
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@given(scale=st.floats(1e-6, 1e6), trust=st.floats(1e-4, 1.0))
def test_a_lars_step_has_the_length_of_the_weights_whatever_the_gradients(scale, trust):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(7, 5))
    before = weight.detach().clone()
    weight.grad = torch.randn(7, 5) * scale
    LARS([weight], lr=0.5, trust=trust).step()
    length = (before - weight.detach()).norm()
    assert length.item() == pytest.approx(0.5 * trust * before.norm().item(), rel=1e-2)


def test_lars_ratio_is_one_where_a_norm_is_zero():
    fresh, still = nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.full((3, 2), 2.0))
    fresh.grad, still.grad = torch.full((3, 2), 4.0), torch.zeros(3, 2)
    optimizer = LARS([fresh, still], lr=0.5, weight_decay=0.25)
    optimizer.step()
    assert torch.equal(fresh, torch.full((3, 2), -2.0))  # lr x gradient
    assert torch.equal(still, torch.full((3, 2), 1.75))  # lr x weight_decay x weights


def test_lars_asks_the_gpu_for_no_number():
    """Tensors that have a shape and a GPU but no values: whoever asks for one gets an exception."""
    with FakeTensorMode():
        flat, matrix = (nn.Parameter(torch.empty(shape, device="cuda")) for shape in ((100,), (8, 4)))
        flat.grad, matrix.grad = torch.empty_like(flat), torch.empty_like(matrix)
        LARS([flat, matrix], lr=0.1).step()
        sharded = LARS([flat], lr=0.1)
        sharded.shard({flat: [Segment(0, 60, 0), Segment(60, 30, 1)]}, 2, lambda squares: squares)
        sharded.step()
        with pytest.raises(DataDependentOutputException):
            bool(flat.norm() > 0)


SHARDED = """
import random, torch
from pipeline.train.lars import LARS, Segment
from pipeline.train.ranks import join


def partition(shapes, rank, world):
    '''ZeRO 1 and 2: all layers one after another, padded; each rank has one stretch of that.'''
    total = sum(w.numel() for w in shapes)
    size = -(-total // world) + 3
    segments, begin = [], 0
    for layer, w in enumerate(shapes):
        low, high = max(begin, rank * size), min(begin + w.numel(), (rank + 1) * size)
        if low < high:
            segments.append((low - rank * size, high - low, layer, low - begin))
        begin += w.numel()
    return [(size, segments)]


def pieces(shapes, rank, world):
    '''ZeRO 3: each rank has a stretch of each layer, padded; a few layers make one flat tensor.'''
    flats = []
    for first in range(0, len(shapes), 3):
        segments, offset = [], 0
        for layer in range(first, min(first + 3, len(shapes))):
            numel = shapes[layer].numel()
            size = -(-numel // world)
            held = min(numel, (rank + 1) * size) - rank * size
            if held > 0:
                segments.append((offset, held, layer, rank * size))
            offset += size
        flats.append((offset, segments))
    return flats


def check(layout, seed, ranks):
    random.seed(seed)
    torch.manual_seed(seed)
    whole = [torch.randn(random.choice([1, 2, 9, 64, 600])) * 3 for _ in range(random.randint(1, 9))]
    layouts = layout(whole, ranks.rank, ranks.world)
    flats = [torch.zeros(size) for size, _ in layouts]

    def spread(into, tensors):
        for flat, (_, segments) in zip(into, layouts):
            for offset, numel, layer, start in segments:
                flat[offset : offset + numel] = tensors[layer][start : start + numel]

    spread(flats, whole)
    options = {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.01, "trust": 0.1}
    reference, sharded = LARS(whole, **options), LARS(flats, **options)
    calls = []

    def reduce(squares):
        assert squares.shape == (2, len(whole))
        calls.append(1)
        ranks.sum(squares)

    found = {f: [Segment(*s[:3]) for s in segments] for f, (_, segments) in zip(flats, layouts)}
    sharded.shard(found, len(whole), reduce)
    for step in range(4):
        for weight in whole:
            weight.grad = torch.randn_like(weight)
        for flat in flats:
            flat.grad = torch.zeros_like(flat)
        spread([flat.grad for flat in flats], [weight.grad for weight in whole])
        reference.step()
        for flat in flats:  # as DeepSpeed does: a call for each flat tensor, alone in its group
            sharded.param_groups[0]["params"] = [flat]
            sharded.step()
            sharded.param_groups[0]["params"] = []
        for optimizer in (reference, sharded):
            optimizer.param_groups[0]["lr"] *= 0.7
    assert len(calls) == 4 * len(flats)
    momenta = [reference.state[weight]["momentum_buffer"] for weight in whole]
    flat_momenta = [sharded.state[flat]["momentum_buffer"] for flat in flats]
    for theirs, ours in ((whole, flats), (momenta, flat_momenta)):
        expected = [torch.zeros_like(flat) for flat in flats]
        spread(expected, theirs)
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-7)


with join("cpu") as ranks:
    for seed in range(10):
        check(partition, seed, ranks)
        check(pieces, seed, ranks)
"""


def test_lars_on_flat_pieces_is_lars_on_whole_layers(tmp_path):
    """Layers cut over two real ranks, as ZeRO cuts them; some ranks hold nothing but padding."""
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    process = torchrun(2, str(script))
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors


# --- state ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("name", NAMES)
def test_state_goes_through_a_file_bit_by_bit(name, form):
    """Stopped after four steps and gone on with in another process's model: as if never stopped.

    The state comes in either memory format, as from an engine that flattens it.
    """
    config = Optimizer(name=name, lr=0.1, weight_decay=0.01)
    model, undisturbed = network(), network()
    steps(undisturbed, build_optimizer(undisturbed, config), range(7))
    optimizer = build_optimizer(model, config)
    steps(model, optimizer, range(4))
    state = named_state(optimizer, dict(model.named_parameters()))
    keys = {"exp_avg", "exp_avg_sq", "step"} if name == "adamw" else {"momentum_buffer"}
    assert all(held.keys() == keys for held in state.values())
    state = {
        key: {of: v.contiguous(memory_format=form) if v.ndim == 4 else v for of, v in held.items()}
        for key, held in state.items()
    }
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "state": state}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    again = network()
    again.load_state_dict(saved["model"])
    optimizer = build_optimizer(again, config)
    parameters = dict(again.named_parameters())
    load_named_state(optimizer, parameters, saved["state"])
    loaded = named_state(optimizer, parameters)
    assert all(equal(loaded[key], state[key]) for key in state)
    steps(again, optimizer, range(4, 7))
    assert equal(again.state_dict(), undisturbed.state_dict())
    assert all(equal(saved["state"][key], state[key]) for key in state), "what was loaded is left alone"
    if name == "adamw":
        assert {int(held["step"]) for held in loaded.values()} == {7}


@pytest.mark.parametrize("name", NAMES)
def test_state_of_a_run_that_has_not_stepped_is_empty(name):
    model = network()
    parameters = dict(model.named_parameters())
    optimizer = build_optimizer(model, Optimizer(name=name, lr=0.1))
    state = named_state(optimizer, parameters)
    assert set(state) == set(parameters)
    assert not any(state.values())
    steps(model, optimizer, range(1))
    load_named_state(optimizer, parameters, state)
    assert not optimizer.state


# --- the learning rate ------------------------------------------------------------------------------------


@given(steps=st.integers(1, 2000), warmup=st.floats(0, 3), per_epoch=st.floats(1, 500))
def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero(steps, warmup, per_epoch):
    config = Optimizer(lr=0.5, warmup=warmup)
    rates = [learning_rate(config, step, steps, per_epoch, 256) for step in range(steps)]
    top = int(np.argmax(rates))
    assert max(rates) <= 0.5 + 1e-12
    assert all(a <= b + 1e-12 for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[top:]))
    assert all(rate > 0 for rate in rates)


def test_the_cosine_is_loshchilovs():
    config = Optimizer(lr=1.0)
    assert learning_rate(config, 0, 100, 10, 256) == 1.0
    assert learning_rate(config, 50, 100, 10, 256) == pytest.approx(0.5)
    assert learning_rate(config, 25, 100, 10, 256) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert learning_rate(Optimizer(lr=1.0, warmup=1.0), 4, 100, 10, 256) == pytest.approx(0.5)


@pytest.mark.parametrize("batch", [256, 1024, 8192])
def test_the_steps_are_goyals(batch):
    """lr 0.1 per 256 pictures, five epochs of warm-up, a tenth of it after 30, 60 and 80 of 90 epochs."""
    config = Optimizer(lr=0.1, lr_batch=256, warmup=5, schedule="step", milestones=[30, 60, 80])
    per_epoch = 1_281_167 / batch
    count = math.ceil(90 * per_epoch)

    def rate(step: int) -> float:
        return learning_rate(config, step, count, per_epoch, batch)

    peak = 0.1 * batch / 256
    assert peak == {256: 0.1, 1024: 0.4, 8192: 3.2}[batch]
    assert rate(0) == pytest.approx(peak / (5 * per_epoch), rel=1e-12)
    assert rate(math.floor(2.5 * per_epoch)) == pytest.approx(peak / 2, rel=1 / per_epoch)
    for epoch, after in ((5, peak), (30, peak / 10), (60, peak / 100), (80, peak / 1000)):
        first = math.ceil(epoch * per_epoch)  # the first step that begins in or after that epoch
        assert rate(first) == after
        assert epoch == 5 or rate(first - 1) == after * 10
    assert rate(count - 1) == peak / 1000


@given(
    n=st.integers(1, 2_000_000), batch=st.integers(1, 4096), epochs=st.integers(1, 20), at=st.integers(0, 20)
)
@example(n=7, batch=3, epochs=90, at=30)  # 70 / (7 / 3) is less than 30
def test_a_milestone_is_its_epochs_first_step(n, batch, epochs, at):
    config = Optimizer(lr=1.0, schedule="step", milestones=[at])
    count = math.ceil(epochs * n / batch)
    first = -(-at * n // batch)
    for step in (0, first - 1, first, count - 1):
        if 0 <= step < count:
            assert learning_rate(config, step, count, n / batch, batch) == (0.1 if step >= first else 1.0)


@given(
    schedule=st.sampled_from(["cosine", "linear", "constant", "step"]),
    steps=st.integers(1, 500),
    warmup=st.floats(0, 3),
    k=st.integers(1, 64),
)
def test_the_learning_rate_is_linear_in_the_batch(schedule, steps, warmup, k):
    milestones = [2, 5] if schedule == "step" else []
    shape = {"warmup": warmup, "schedule": schedule, "milestones": milestones}
    base, scaled = Optimizer(lr=0.1, **shape), Optimizer(lr=0.1, lr_batch=256, **shape)
    assert peak_rate(scaled, 256) == peak_rate(base, 256 * k) == 0.1
    for step in {0, steps // 3, steps - 1}:
        once = learning_rate(base, step, steps, 50.0, 256)
        assert learning_rate(base, step, steps, 50.0, 256 * k) == once
        assert learning_rate(scaled, step, steps, 50.0, 256 * k) == pytest.approx(k * once)
    if schedule == "constant" and warmup == 0:
        assert once == 0.1
