"""DeepSpeed's ZeRO on one GPU against DDP: the rounds of test_engines.py, with bounds for a GPU."""

from pathlib import Path

import pytest
import torch
from conftest import ROOT
from engine_rounds import ENGINES, SAME
from gpu_small import GPU, one_rank
from jobs import same_bits, write_config
from torch import Tensor

ZERO = ENGINES[1:]
LOSS, TENSOR = 1e-5, 2e-3
"""Relative; ten and two hundred times what ranks on a CPU may differ by: where weights lie otherwise,
other kernels add up in another order, and batch norm's biases show it most."""


@pytest.fixture(scope="module", params=GPU)
def played(request, small_index, tmp_path_factory) -> Path:
    """One rank begins, and another process goes on."""
    folder = tmp_path_factory.mktemp("played")
    config = write_config(folder, small_index, train__device=request.param, train__precision="fp32")
    for rounds in ("same,begin", "go_on,carry"):
        script = str(ROOT / "tests" / "engine_rounds.py")
        one_rank(request.param, script, rounds, config, str(folder), request.param)
    return folder


def seen(folder: Path, name: str) -> dict:
    return torch.load(folder / f"{name}.pt", weights_only=True, map_location="cpu")


def off(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of a tensor in norm, relative."""
    assert found.keys() == expected.keys()
    norms = [
        (torch.linalg.norm(found[name].double() - each.double()), torch.linalg.norm(each.double()))
        for name, each in expected.items()
    ]
    return max(float(away / whole) if whole else float(away) for away, whole in norms)


@pytest.mark.parametrize("setting", SAME)
def test_all_stages_take_ddps_steps(setting, played, record_property):
    ddp, worst = seen(played, f"{setting} ddp"), 0.0
    for engine in ZERO:
        found = seen(played, f"{setting} {engine}")
        assert found["losses"] == pytest.approx(ddp["losses"], rel=LOSS), engine
        for ours, theirs in zip(found["gradients"], ddp["gradients"], strict=True):
            worst = max(worst, off(ours, theirs))
        worst = max(worst, off(found["state"]["model"], ddp["state"]["model"]))
        assert worst <= TENSOR, engine
        assert found["val False"] == pytest.approx(ddp["val False"], rel=10 * LOSS), engine
    record_property("off", worst)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_continued_run_is_bit_identical(engine, played):
    assert same_bits(seen(played, f"continued {engine}"), seen(played, f"whole {engine}"))


@pytest.mark.parametrize("reader", ENGINES)
def test_every_stage_reads_every_checkpoint(reader, played):
    for writer in ENGINES:
        assert same_bits(seen(played, f"{writer} by {reader}"), seen(played, f"half {writer}")), writer
