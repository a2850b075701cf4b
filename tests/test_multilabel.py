"""Training on pictures of several labels: the loss, and a network that learns from it."""

import downstream_small as small
import numpy as np
import pytest
import torch
from conftest import quick_config
from PIL import Image
from torch.nn import functional as F

from pipeline.data.index import open_index
from pipeline.data.mix import Mix
from pipeline.data.prepare import write_index
from pipeline.data.sources import read
from pipeline.data.sources.voc2007 import CLASSES
from pipeline.train import Job, fit
from pipeline.train.loss import cross_entropy, losses, right
from pipeline.train.ranks import join

TARGETS = torch.tensor([[1, -1, 0, 1], [-1, -1, -1, -1], [0, 0, 0, 0], [0, 1, -1, 0]], dtype=torch.int8)


def logits() -> torch.Tensor:
    return torch.randn(4, 4, generator=torch.manual_seed(0), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_each_picture_counts_its_plain_labels_alone(smoothing):
    said = logits()
    ours = losses(said, TARGETS, smoothing)
    free = said.detach()
    for row, targets in enumerate(TARGETS):
        plain = targets != 0
        wanted = (targets[plain] > 0).double() * (1 - smoothing) + smoothing / 2
        theirs = F.binary_cross_entropy_with_logits(free[row, plain], wanted) if plain.any() else 0.0
        assert ours[row].item() == pytest.approx(float(theirs), rel=1e-12)
    loss = cross_entropy(said, TARGETS, None, smoothing)
    assert loss.item() == pytest.approx(ours.mean().item())
    (slope,) = torch.autograd.grad(loss, said)
    assert ((slope == 0) == (TARGETS == 0)).all(), "hard labels teach nothing"


def test_of_mixed_pictures_both_labels_count_by_their_shares():
    said, share = logits(), torch.tensor([0.3, 0.3, 1.0, 0.0])
    other = TARGETS.flip(0)
    ours = cross_entropy(said, TARGETS, Mix(other, share), 0.0)
    want = share * losses(said, TARGETS) + (1 - share) * losses(said, other)
    assert float(ours) == pytest.approx(float(want.mean()))


def test_the_top_answer_is_right_where_it_is_shown():
    said = torch.tensor([[3.0, 0, 0, 0], [3, 0, 0, 0], [3, 0, 0, 0], [0, 3, 0, 0]])
    assert right(said, TARGETS).tolist() == [True, False, False, True]
    assert right(said, torch.tensor([0, 1, 0, 1])).tolist() == [True, False, True, True]


def shown(path) -> None:
    """A picture as its number says: striped if even, red if divisible by three."""
    number = int(path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).normal(110, 25, (32, 32, 3))
    if number % 2 == 0:
        pixels[::4] += 90
    if number % 3 == 0:
        pixels[..., 0] += 90
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)


def pictures(numbers) -> dict:
    """Even ones show a cat, those divisible by three a dog; every seventh's dog is hard to tell."""
    found = {}
    for number in numbers:
        cat, dog = ["cat"] * (number % 2 == 0), ["dog"] * (number % 3 == 0)
        found[f"{number:06d}"] = (cat + dog * (number % 7 > 0), dog * (number % 7 == 0))
    return found


def test_a_network_learns_what_is_shown(tmp_path):
    content = {"train": pictures(range(160)), "val": pictures([160]), "test": pictures(range(200, 260))}
    small.voc2007(tmp_path, content=content, draw=shown)
    write_index(read("voc2007", tmp_path), tmp_path / "index")
    index = open_index(tmp_path / "index")
    train, test = (index.split(name, multilabel=True) for name in ("train", "test"))
    changes = {"train__epochs": 6.0, "optim__lr": 0.3, "data__pictures__flip": 0.0, "checkpoint__every": 6.0}
    with join("cpu") as ranks:
        job = Job(quick_config(tmp_path / "index", tmp_path / "runs", **changes), ranks, train)
        seen = job.evaluate(fit(job), test, "test")
    assert seen.scores.shape == (60, 20)
    assert seen.scores.dtype == np.float32
    assert np.array_equal(seen.scores.argmax(axis=1), seen.predictions)
    wanted = [test.labels[row, label] == 1 for row, label in enumerate(seen.predictions)]
    assert seen.top1 == np.mean(wanted)
    for name in ("cat", "dog"):
        column = CLASSES.index(name)
        plain = test.labels[:, column] != 0
        told = (seen.scores[:, column] > 0) == (test.labels[:, column] > 0)
        assert told[plain].mean() > 0.85, name
    want = losses(torch.from_numpy(seen.scores), torch.from_numpy(test.labels.copy())).mean()
    assert seen.loss == pytest.approx(float(want), rel=1e-5)
