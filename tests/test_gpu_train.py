"""Training on a GPU: mixed precision against fp32, bits again after a resume, NCCL, gradient looks."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gpu_small import GPU, of, on_devices, one_rank, rows_of
from jobs import back_to_the_first, same_bits, write_config

from pipeline.monitor.metrics import read_rows
from pipeline.train import checkpoint


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """A deterministic run leaves torch deterministic: its process has no other to do."""
    yield
    torch.use_deterministic_algorithms(False)


STEPS = {"cuda": 40, "cpu": 4}
"""A CPU without instructions for narrow types takes minutes for forty."""
TOLERANCE = 0.03
"""Of a quarter's mean loss, relative to fp32's. Seen on a CPU over 40 steps: 0.004 in bf16, 0.002 in fp16."""


@on_devices
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_loss_curves_follow_fp32(device, precision, small_index, tmp_path, record_property):
    """Means over quarters of the run."""
    steps = STEPS[device]

    def curve(name: str) -> list[float]:
        changes = {"name": name, "train__precision": name, "train__steps": steps, "train__epochs": None}
        changes |= {"optim": {"lr": 0.02, "warmup": 0.5}, "checkpoint__every": 100.0, "train__batch": 50}
        rows = rows_of(small_index, tmp_path, device, "train", **changes)
        # In fp16 the loss scale is found by trying; a step that overflows is skipped.
        assert sum(row["skipped"] for row in rows) <= (8 if name == "fp16" else 0)
        losses = [row["loss"] for row in rows]
        return [sum(losses[place : place + steps // 4]) * 4 / steps for place in range(0, steps, steps // 4)]

    ours, theirs = curve(precision), curve("fp32")
    off = [abs(mine / other - 1) for mine, other in zip(ours, theirs, strict=True)]
    record_property("off", max(off))
    assert steps < 40 or theirs[-1] < 0.8 * theirs[0], "it learns"
    assert max(off) <= TOLERANCE


@pytest.mark.parametrize("device", GPU)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_continued_run_is_bit_identical(device, precision, small_index, tmp_path):
    """Deterministic; two processes under torchrun, the second from the first one's checkpoint."""
    changes = {"train__device": device, "train__precision": precision, "train__deterministic": True}
    changes |= {"train__ema": 0.9, "train__channels_last": True, "checkpoint__keep": 9, "data__val": "val"}
    config = write_config(tmp_path, small_index, **changes)
    one_rank(device, "-m", "launch.train", config)
    run = tmp_path / "runs" / "quick"
    whole, rows = checkpoint.read(run), read_rows(run / "metrics.jsonl")
    back_to_the_first(run)
    one_rank(device, "-m", "launch.train", config)
    again = checkpoint.read(run)
    for part in ("model", "ema", "optimizer"):
        assert same_bits(again[part], whole[part]), part
    losses = [
        [row["loss"] for row in each if row["split"] == "train"]
        for each in (rows, read_rows(run / "metrics.jsonl"))
    ]
    assert losses[0] == losses[1]


@on_devices
def test_an_imagenet_network_may_be_deterministic(device, small_index, tmp_path):
    """Its max pool too: torch knows no deterministic backward pass for some layers, and refuses."""
    assert trained_twice_alike(device, small_index, tmp_path, model__name="resnet18")


@pytest.mark.parametrize("device", GPU)
@pytest.mark.parametrize("size", [224, 448])
def test_a_vgg_may_be_deterministic(device, size, small_index, tmp_path):
    """Where its grid of 7x7 divides the positions."""
    how = {"model__name": "vgg11", "data__pictures": {"size": size, "eval_resize": None}}
    assert trained_twice_alike(device, small_index, tmp_path, **how)


def trained_twice_alike(device: str, index: Path, folder: Path, **how) -> bool:
    """Three deterministic steps, twice."""
    weights = []
    for name in ("one", "two"):
        changes = {"name": name, "train__deterministic": True, "train__steps": 3, "train__epochs": None}
        rows_of(index, folder, device, "train", **changes, train__precision="fp32", **how)
        weights.append(checkpoint.read(folder / name)["model"])
    return same_bits(*weights)


@on_devices
def test_gradient_looks_are_the_cpus(device, small_index, tmp_path, monkeypatch, record_property):
    """Norms of the first step's gradients, layer by layer; later ones drift apart by rounding."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)

    def first(each: str) -> dict:
        changes = {"name": each, "monitor__gradients_every": 1, "train__steps": 2, "train__epochs": None}
        changes |= {"train__precision": "fp32", "train__accumulate": 2, "optim__clip": 1.0}
        return rows_of(small_index, tmp_path / each, each, "gradients", **changes)[0]

    ours, theirs = first(device), first("cpu")
    assert ours["layers"] == theirs["layers"]
    off = [abs(mine / other - 1) for mine, other in zip(ours["norm"], theirs["norm"], strict=True)]
    record_property("off", max(off))
    assert max(off) <= 1e-2
    assert ours["total_norm"] == pytest.approx(theirs["total_norm"], rel=1e-2)
    assert ours["noise_scale"] == pytest.approx(theirs["noise_scale"], rel=0.1)


NCCL = """
import sys, torch
import torch.distributed as dist
from torch import nn
from pipeline.train.engine.ddp import _wrapped
from pipeline.train.ranks import join

with join(sys.argv[1], hang_timeout=120) as ranks:
    assert (ranks.rank, ranks.world) == (0, 1)
    shared = torch.arange(4.0, device=ranks.device)
    assert ranks.sum(shared.clone()).tolist() == shared.tolist()
    assert ranks.any(True) and not ranks.any(False) and ranks.gather("here") == ["here"]
    ranks.same(iter([shared]))
    assert dist.get_backend(torch.distributed.group.WORLD) is not None
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)).to(ranks.device)
    images = torch.randn(5, 3, 8, 8, device=ranks.device)
    model(images).sum().backward()
    alone = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    _wrapped(model, ranks)(images).sum().backward()
    for parameter, expected in zip(model.parameters(), alone):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-5)
    if ranks.device.type == "cuda":
        torch.cuda.synchronize()
    print("all of it", flush=True)
"""


@on_devices
def test_one_rank_of_nccl_under_torchrun(device, tmp_path):
    """Reductions, and DDP's backward pass, over NCCL on the GPU and gloo on the host."""
    script = tmp_path / "nccl.py"
    script.write_text(NCCL)
    one_rank(device, str(script), device)


@on_devices
def test_a_compiled_step_is_the_plain_one(device, small_index, tmp_path, monkeypatch, record_property):
    """torch.compile fuses, and rounds otherwise. On a CPU nothing is compiled: that is test_engines.py's."""
    if device == "cpu":
        monkeypatch.setattr(torch, "compile", lambda model: model)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    losses = []
    for name in ("plain", "compiled"):
        changes = {
            "name": name,
            "train__compile": name == "compiled",
            "train__steps": 5,
            "train__epochs": None,
        }
        changes |= {"train__precision": "fp32", "optim__lr": 0.01}
        rows = rows_of(small_index, tmp_path, device, "train", **changes)
        losses.append([row["loss"] for row in rows])
    off = max(abs(mine / other - 1) for mine, other in zip(*losses, strict=True))
    record_property("off", off)
    assert off <= 1e-2


@on_devices
def test_what_is_measured_is_on_the_device(device, small_index, tmp_path):
    """Weights, pictures and phases: a run that quietly stayed on the host would pass all else."""
    changes = {"train__steps": 3, "train__epochs": None, "name": "where"}
    rows = rows_of(small_index, tmp_path, device, "train", **changes)
    assert all(row["forward"] > 0 and row["backward"] > 0 for row in rows)
    if device == "cuda":
        assert torch.cuda.max_memory_allocated(of(device)) > 0
    shutil.rmtree(tmp_path / "where")
