"""Gradient flow: looked at without changing anything, the same however a step is split, and unbiased."""

import json

import numpy as np
import pytest
import torch
import yaml
from conftest import config_tree, door, quick_config, torchrun
from torch import nn

from pipeline.config import Train
from pipeline.data.index import open_index
from pipeline.models import build
from pipeline.monitor.gradients import GradientFlow
from pipeline.monitor.metrics import read_rows
from pipeline.report.flow import parts
from pipeline.train import Job, fit
from pipeline.train.plan import Plan
from pipeline.train.ranks import join

FIT = """
import sys, torch
from torch._dynamo.utils import counters
from pipeline.config import TrainConfig, load
from pipeline.data.index import open_index
from pipeline.train import Job, fit
from pipeline.train.ranks import join

path, *runs = sys.argv[1:]
with join("cpu") as ranks:
    for words in runs:
        torch._dynamo.reset()
        counters.clear()
        config = load(TrainConfig, path, words.split())
        model = fit(Job(config, ranks, open_index(config.data.index).split("train")))
        if ranks.first:
            graphs = counters["stats"]["unique_graphs"]
            torch.save({"model": model.state_dict(), "graphs": graphs}, config.folder / "end.pt")
"""
"""Several runs, each a string of overrides, by the same processes."""


def fit_all(folder, tree: dict, world: int, *runs: str) -> None:
    (folder / "fit.py").write_text(FIT)
    (folder / "c.yaml").write_text(yaml.safe_dump(tree))
    process = torchrun(world, str(folder / "fit.py"), str(folder / "c.yaml"), *runs)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    assert "epoch" not in errors, "looks are silent"


SPLIT = {"model__norm": False, "optim__lr": 0.01, "train__epochs": 0.3, "monitor__gradients_every": 2}
"""Of a run whose numbers do not depend on how a step is split; without batch norm."""


@pytest.fixture(scope="module")
def on_two(small_index, tmp_path_factory):
    """Runs of two ranks, by the same processes: starting them takes longer than the runs."""
    folder = tmp_path_factory.mktemp("two")
    split = " ".join(f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in SPLIT.items())
    runs = [
        f"name={every}-{accumulate} monitor.gradients_every={every} train.accumulate={accumulate}"
        for every in ("null", 3)
        for accumulate in (1, 2)
    ]
    fit_all(folder, config_tree(small_index, folder, train__epochs=0.8), 2, *runs, f"name=split {split}")
    return folder


def end(tmp_path, name: str) -> dict:
    return torch.load(tmp_path / name / "end.pt", weights_only=True)


def looks(run) -> list[dict]:
    return [row for row in read_rows(run / "metrics.jsonl") if row["split"] == "gradients"]


def same_bits(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- in training ------------------------------------------------------------------------------------------


def test_looking_changes_no_bit(on_two):
    for accumulate in (1, 2):
        blind, seen = (end(on_two, f"{every}-{accumulate}")["model"] for every in ("null", 3))
        assert same_bits(blind, seen)
        assert not looks(on_two / f"null-{accumulate}")
        rows = looks(on_two / f"3-{accumulate}")
        assert [row["step"] for row in rows] == [1, 3, 6, 9]
        assert all(None not in [*row["norm"], *row["update_ratio"], *row["snr"]] for row in rows)
    assert not same_bits(blind, end(on_two, "null-1")["model"]), "batch norm sees other micro-batches"


def test_numbers_do_not_depend_on_how_a_step_is_split(on_two, small_index, tmp_path):
    """1 rank, 2 ranks, 3 ranks x 2 micro-batches. Noise is estimated from other parts."""
    with join("cpu") as ranks:
        config = quick_config(small_index, tmp_path, name="alone", **SPLIT)
        fit(Job(config, ranks, open_index(small_index).split("train")))
    fit_all(tmp_path, config_tree(small_index, tmp_path, **SPLIT), 3, "name=six train.accumulate=2")
    alone, two, six = map(looks, (tmp_path / "alone", on_two / "split", tmp_path / "six"))
    assert [row["step"] for row in alone] == [1, 2, 4]
    for row in alone:
        assert row["snr"] == [None] * len(row["layers"])
        assert row["total_snr"] is row["noise_scale"] is None
    layers = [name for name, module in build("resnet8", 5).named_modules() if hasattr(module, "weight")]
    layers = [name for name in layers if "bn" not in name]
    for split in (two, six):
        for ours, theirs in zip(split, alone, strict=True):
            assert ours["layers"] == theirs["layers"] == layers
            for key in ("norm", "update_ratio", "total_norm"):
                assert ours[key] == pytest.approx(theirs[key], rel=1e-4), key
            assert np.isfinite([*ours["snr"], ours["total_snr"]]).all()
    assert two[0]["snr"] != six[0]["snr"]


@pytest.mark.slow
def test_hooks_fire_in_a_compiled_model_and_compile_nothing_anew(small_index, tmp_path):
    changes = {"train__compile": True, "train__epochs": 0.5, "train__accumulate": 2}
    runs = ["name=blind", "name=seen monitor.gradients_every=2"]
    fit_all(tmp_path, config_tree(small_index, tmp_path, **changes), 2, *runs)
    blind, seen = end(tmp_path, "blind"), end(tmp_path, "seen")
    assert same_bits(blind["model"], seen["model"])
    assert blind["graphs"] == seen["graphs"] == 1
    rows = looks(tmp_path / "seen")
    assert [row["step"] for row in rows] == [1, 2, 4, 6]
    assert all(None not in row["snr"] for row in rows)


@pytest.mark.slow
def test_deepspeed_tells_what_ddp_tells(small_index, tmp_path):
    """Stages 2 and 3 reduce every micro-batch's gradients and keep but a part: hooks come before that."""
    changes = {"train__accumulate": 2, "train__epochs": 0.3, "monitor__gradients_every": 2, "optim__lr": 0.01}
    runs = [f"name=zero-{stage} engine=deepspeed deepspeed.stage={stage}" for stage in range(4)]
    runs += ["name=blind engine=deepspeed deepspeed.stage=3 monitor.gradients_every=null"]
    fit_all(tmp_path, config_tree(small_index, tmp_path, **changes), 2, "name=ddp", *runs)
    for stage in range(4):
        for ours, theirs in zip(looks(tmp_path / f"zero-{stage}"), looks(tmp_path / "ddp"), strict=True):
            assert ours["layers"] == theirs["layers"]
            for key in ("norm", "update_ratio", "snr", "total_norm", "total_snr"):
                assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-4), (stage, key)
    assert same_bits(end(tmp_path, "blind")["model"], end(tmp_path, "zero-3")["model"])


def test_fp16_gradients_are_told_without_their_loss_scale(small_index, tmp_path):
    found = {}
    with join("cpu") as ranks:
        for precision in ("fp32", "fp16"):
            changes = {"train__precision": precision, "train__accumulate": 2, "train__epochs": 0.1}
            changes |= {"monitor__gradients_every": 1, "optim__lr": 1e-6, "name": precision}
            config = quick_config(small_index, tmp_path, **changes)
            fit(Job(config, ranks, open_index(small_index).split("train")))
            found[precision] = looks(config.folder)
    # The first scale may overflow: such a step is skipped.
    narrow = [row for row in found["fp16"] if row["total_norm"] is not None]
    assert narrow
    for row in narrow:
        exact = found["fp32"][found["fp16"].index(row)]
        # The first layer's gradient is a sum over all pixels that nearly cancels: in bf16 it is 15 % off.
        assert row["norm"] == pytest.approx(exact["norm"], rel=0.05)
        # A difference of two norms of near size; with a wrong scale it would be -1, or none.
        assert row["snr"] == pytest.approx(exact["snr"], rel=0.2, abs=0.1)


def test_a_gradient_that_is_not_finite_is_none_and_names_its_layers(small_index, tmp_path):
    """The rate of the first step throws the last layer's weights out of fp32: the second has no loss."""
    config = quick_config(
        small_index, tmp_path, optim={"lr": 1e30}, train__epochs=0.2, monitor__gradients_every=1
    )
    with join("cpu") as ranks:
        fit(Job(config, ranks, open_index(small_index).split("train")))
    text = (config.folder / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    first, second, _ = looks(config.folder)
    assert None not in first["norm"]
    assert second["norm"] == [None] * 8
    assert second["update_ratio"] == [0.0] * 8, "the step was skipped"
    losses = [row["loss"] for row in read_rows(config.folder / "metrics.jsonl") if row["split"] == "train"]
    assert losses[1] is None


@pytest.mark.filterwarnings("error")
def test_an_infinite_gradient_is_told_without_a_warning():
    model = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Linear(1, 1, bias=False))
    flow = GradientFlow(model, Train(batch=2, epochs=1.0, accumulate=2), 1)
    flow.begin(model.state_dict(), loss_scale=1.0)
    for _ in range(2):
        (model(torch.ones(1, 3)) * 3e38 * 10).sum().backward()
    flow.look({name: parameter.grad for name, parameter in model.named_parameters()})
    row = flow.end(model.state_dict(), lambda tensor: tensor)
    assert row["norm"] == row["snr"] == [None, None]
    assert row["total_norm"] is row["total_snr"] is row["noise_scale"] is None
    assert row["update_ratio"] == [0.0, 0.0]


def test_looks_come_at_the_interval_and_in_the_first_and_last_step(small_index):
    def steps(every):
        plan = Plan.of(quick_config(small_index, "runs", monitor__gradients_every=every), 250, 1)
        return [done for done in range(1, plan.steps + 1) if plan.looks(done)]

    assert steps(4) == [1, 4, 8, 11]
    assert steps(1000) == [1, 11]
    assert steps(None) == []


def test_a_mistyped_interval_is_told(small_index, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config_tree(small_index, tmp_path)))
    got = door("launch.train", str(tmp_path / "c.yaml"), "monitor.gradients_every=0")
    assert got.returncode == 2
    assert "monitor.gradients_every: " in got.stderr


# --- the estimates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [2, 8])
def test_signal_and_noise_are_unbiased(accumulate):
    """Linear regression on x ~ N(0, I), y = v x + N(0, s^2): everything is known in closed form.

    With e = w - v a picture's gradient is x (x e) - x noise; its mean is e, and the expectation of its square
    is (d + 2) |e|^2 + s^2 d (fourth moments of a normal). Tolerance: four standard errors of 1,500 looks.
    """
    d, batch, spread, count = 5, 16, 0.7, 1500
    generator = torch.Generator().manual_seed(accumulate)
    model = nn.Sequential(nn.Linear(d, 1, bias=False))
    error = torch.linspace(0.1, 0.5, d)
    truth = model[0].weight.detach().flatten() - error  # v
    trace = float((d + 1) * error.square().sum() + spread**2 * d)
    flow = GradientFlow(model, Train(batch=batch, epochs=1.0, accumulate=accumulate), 1)
    found = []
    for _ in range(count):
        flow.begin(model.state_dict(), loss_scale=4.0)
        model.zero_grad()
        for _ in range(accumulate):
            x = torch.randn(batch // accumulate, d, generator=generator)
            y = x @ truth + spread * torch.randn(len(x), generator=generator)
            loss = 0.5 * (model(x).flatten() - y).square().mean()
            (4.0 * loss / accumulate).backward()
        flow.look({"0.weight": model[0].weight.grad / 4.0})
        row = flow.end(model.state_dict(), lambda tensor: tensor)
        found.append(np.concatenate(parts(row["norm"], row["snr"])))
    signal, noise = np.array(found).T
    for estimates, true in ((signal, float(error.square().sum())), (noise, trace / batch)):
        standard_error = estimates.std() / np.sqrt(count)
        assert standard_error < 0.05 * true
        assert abs(estimates.mean() - true) < 4 * standard_error
    assert (signal < 0).any(), "single looks are noisy, and told as they are"
