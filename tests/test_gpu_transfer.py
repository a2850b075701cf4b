"""The frozen network and the probe on a GPU: the CPU's features, the CPU's optimum."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gpu_small import SMALL, loader, on_devices

from pipeline.bench.gpu.probe import made
from pipeline.config import Model
from pipeline.data.index import open_index
from pipeline.models import build
from pipeline.train.ranks import join
from pipeline.transfer.backbone import LAST, Backbone
from pipeline.transfer.features import at_depths
from pipeline.transfer.probe import choose, fit
from pipeline.transfer.probe.problem import Problem


def backbone() -> Backbone:
    """A ResNet-8 with random weights, whose batch norms have statistics of their own."""
    torch.manual_seed(0)
    model = build("resnet8", 5).train()
    for _ in range(5):
        model(torch.randn(8, 3, 32, 32))
    return Backbone(Path("random"), "digest", Model(name="resnet8"), model.state_dict(), 5)


@on_devices
def test_features_are_the_cpus(device, small_index, tmp_path, record_property):
    """All depths in one pass; nothing of the network moves."""
    split, depths = open_index(small_index).split("test"), ["stage1", "stage3", LAST]
    found, given = {}, backbone()
    before = {key: value.clone() for key, value in given.weights.items()}
    for each in (device, "cpu"):
        folder = tmp_path / f"{each} {len(found)}"
        with join(each) as ranks:
            some = at_depths(given, loader(split, SMALL, each), 16, folder, ranks, depths=depths)
            found[str(folder)] = {depth: np.array(some[depth]) for depth in depths}
    ours, theirs = found.values()
    off = [np.abs(ours[depth] - theirs[depth]).max() / np.abs(theirs[depth]).max() for depth in depths]
    record_property("off", float(max(off)))
    assert max(off) <= 1e-4, "fp32 without TF32"
    assert all(torch.equal(given.weights[key], value) for key, value in before.items())


@on_devices
def test_the_probes_optimum_is_the_cpus(device, record_property):
    """Through float32 products, as large problems have them: the same F to 1e-4 at every lambda."""
    features, labels = made(3000, 96, 100, 1)
    assert features.size * 100 > 25_000_000, "products in float32"
    worst = 0.0
    ours, theirs = (Problem(features, labels, 100, each) for each in (device, "cpu"))
    for lam in (1e3, 1.0, 1e-2) if device == "cuda" else (1e3,):
        values = []
        for problem in (ours, theirs):
            found, converged, _ = problem.solve(lam, 1e-5, 1000)
            assert converged
            values.append(objective(found, features, labels, lam))
        worst = max(worst, abs(values[0] / values[1] - 1))
    record_property("off", worst)
    assert worst <= 1e-4


def objective(probe, features: np.ndarray, labels: np.ndarray, lam: float) -> float:
    """F, in float64."""
    logits = probe.logits(features)
    top = logits.max(1, keepdims=True)
    sums = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    return float((sums - logits[np.arange(len(labels)), labels]).sum() + lam * (probe.weight**2).sum())


@on_devices
@pytest.mark.parametrize("several", [False, True])
def test_the_choice_is_the_cpus(device, several):
    """One class a picture, and several: the same lambda, scores to rounding."""
    features, labels = made(400, 24, 6, 1)
    targets = labels
    if several:
        targets = np.where(np.arange(6) == labels[:, None], 1, -1).astype(np.int8)
        targets[::7, 2] = 0
    rows = np.arange(400)
    how = {"lambdas": [1e-3, 1e-1, 1e1], "classes": 6, "by": "loss"}
    ours, theirs = (
        choose(features, targets, rows[:300], rows[300:], device=each, **how) for each in (device, "cpu")
    )
    assert ours.lam == theirs.lam
    np.testing.assert_allclose(ours.path, theirs.path, rtol=1e-4)
    found, expected = (fit(features, targets, ours.lam, 6, device=each) for each in (device, "cpu"))
    np.testing.assert_allclose(
        found.weight, expected.weight, rtol=1e-3, atol=1e-4 * np.abs(expected.weight).max()
    )
