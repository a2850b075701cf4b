"""Features: the plain forward pass of every picture, once, whatever happens to the jobs that compute them."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, drawn_pictures, torchrun
from jobs import damage, photographs
from torch.backends import cudnn

from pipeline.config import Loading, Model, Pictures, UserError
from pipeline.data.index import Split, open_index
from pipeline.data.loader import Loader
from pipeline.data.prepare import write_index
from pipeline.data.sources import Source
from pipeline.models import build
from pipeline.preempt import STOP, Preempted
from pipeline.train.ranks import join
from pipeline.transfer.backbone import LAST, Backbone
from pipeline.transfer.features import at_depths, features

SMALL = Pictures(size=32, crop="pad", eval_resize=None)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    """45 pictures."""
    out = tmp_path_factory.mktemp("other") / "index"
    write_index(Source("other", list("xyz"), {"test": drawn_pictures(45, 3, 11)}), out)
    return open_index(out).split("test")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A ResNet-8 with random weights, whose batch norms have statistics of their own."""
    torch.manual_seed(0)
    model = build("resnet8", 5).train()
    for seed in range(20):
        model(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed)))
    return Backbone(Path("random"), "digest", Model(name="resnet8"), model.state_dict(), 5)


def expected(backbone: Backbone, split: Split, depths: list[str]) -> list[np.ndarray]:
    """By torch alone."""
    mean, std = torch.tensor(SMALL.mean), torch.tensor(SMALL.std)
    images = ((torch.from_numpy(np.array(split.pixels[:])) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        return [found.numpy() for found in backbone.frozen(CPU).at(images, depths)]


class Counted(Backbone):
    """A backbone that counts the forward passes of what it makes, and may be stopped at one."""

    passes = 0
    at_pass = None
    """(number, what is called then)"""

    def frozen(self, device):
        model = super().frozen(device)
        real = model.at

        def at(*words):
            type(self).passes += 1
            if self.at_pass and self.passes == self.at_pass[0]:
                self.at_pass[1]()
            return real(*words)

        model.at = at
        return model


@pytest.fixture
def counted(backbone) -> Backbone:
    class Own(Counted):
        pass

    return Own(**vars(backbone))


def get(backbone, split, folder, ranks, depths=(LAST,), pictures=SMALL, batch=16) -> list[np.ndarray]:
    loader = Loader(split, pictures, Loading(threads=1), ranks.device, True)
    found = at_depths(backbone, loader, batch, folder, ranks, depths=depths)
    return [np.array(found[depth]) for depth in depths]


def test_computed_once_and_healed(counted, split, tmp_path, capsys):
    with join("cpu") as ranks:
        (first,) = get(counted, split, tmp_path, ranks)
        assert first.shape == (45, 64)
        assert first.dtype == np.float32
        assert counted.passes == 3
        assert np.array_equal(get(counted, split, tmp_path, ranks)[0], first)
        assert counted.passes == 3, "the second time comes from the cache"

        (file,) = tmp_path.glob("*.npy")
        content = bytearray(file.read_bytes())
        content[-7] ^= 1
        for number, wrong in enumerate((content, content[:300]), 2):
            file.write_bytes(wrong)
            capsys.readouterr()
            assert np.array_equal(get(counted, split, tmp_path, ranks)[0], first)
            assert counted.passes == 3 * number, "a damaged or cut-off cache is computed again"
            assert f"{file}: damaged or cut off; it is computed again" in capsys.readouterr().err

        (part,) = get(counted, split.take(np.array([4, 2])), tmp_path, ranks)
        assert np.allclose(part, first[[4, 2]], atol=1e-5)
        counted_before = counted.passes
        other = SMALL.model_copy(update={"mean": [0.5, 0.5, 0.5]})
        get(counted, split, tmp_path, ranks, pictures=other)
        assert counted.passes == counted_before + 3, "other preprocessing makes other features"
        get(counted, split, tmp_path, ranks, pictures=SMALL.model_copy(update={"pad": 2, "flip": 0.0}))
        assert counted.passes == counted_before + 3, (
            "training's augmentation is not evaluation's preprocessing"
        )


def test_convolutions_are_exact_and_cudnns(counted, split, tmp_path):
    """Whether there is a GPU or not: flags() switches off what it is not given."""
    seen = []
    type(counted).at_pass = (1, lambda: seen.append((cudnn.enabled, cudnn.allow_tf32)))
    before = (cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32)
    with join("cpu") as ranks:
        get(counted, split, tmp_path, ranks)
    assert seen == [(True, False)]
    assert (cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32) == before


def test_what_lies_around_a_small_picture_is_of_the_key(counted, split, tmp_path):
    whole = SMALL.model_copy(update={"eval_size": 40})
    with join("cpu") as ranks:
        black, mean, again = (
            get(counted, split, tmp_path, ranks, pictures=whole.model_copy(update={"pad_colour": colour}))[0]
            for colour in ("black", "mean", "black")
        )
    assert not np.allclose(black, mean, atol=1e-2)
    assert np.array_equal(black, again)


def test_several_depths_come_from_one_pass_and_resolutions_from_one_each(counted, split, tmp_path):
    depths = ["stage1", "stage2", "stage3", LAST]
    with join("cpu") as ranks:
        found = get(counted, split, tmp_path, ranks, depths)
        assert counted.passes == 3
        for ours, theirs in zip(found, expected(counted, split, depths), strict=True):
            assert np.allclose(ours, theirs, atol=1e-4)
        assert [each.shape[1] for each in found] == [16, 32, 64, 64]
        before = counted.passes
        alone = get(counted, split, tmp_path, ranks, ["stage2"])
        assert np.array_equal(alone[0], found[1])
        assert counted.passes == before
        large = SMALL.model_copy(update={"eval_size": 48, "eval_resize": 48})
        more = get(counted, split, tmp_path, ranks, depths, pictures=large)
        assert counted.passes == before + 3
        assert not np.allclose(more[0], found[0], atol=1e-2)
        assert len(list(tmp_path.glob("*.npy"))) == 8
        with pytest.raises(UserError, match="depth 'stage4': the network has stage1, stage2, stage3, embed"):
            get(counted, split, tmp_path, ranks, ["stage4"])


def test_asked_to_stop_the_next_job_goes_on(counted, split, tmp_path, monkeypatch):
    monkeypatch.setattr(STOP, "why", "")  # and again after the test
    type(counted).at_pass = (4, lambda: setattr(STOP, "why", "SIGTERM"))
    with join("cpu") as ranks:
        with pytest.raises(Preempted, match=r"stopped in features \(SIGTERM\)"):
            get(counted, split, tmp_path, ranks, batch=7)
        STOP.why = ""
        assert counted.passes == 4
        (found,) = get(counted, split, tmp_path, ranks, batch=7)
        assert counted.passes == 7, "seven batches in all"
        (whole,) = get(counted, split, tmp_path / "whole", ranks, batch=7)
    assert np.array_equal(found, whole)


SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from pipeline.config import Loading, Model, Pictures
from pipeline.data.index import open_index
from pipeline.data.loader import Loader
from pipeline.train.ranks import join
from pipeline.transfer import cache
from pipeline.transfer.backbone import Backbone, Frozen
from pipeline.transfer.features import features

index, weights, folder, limit = sys.argv[1:]
cache.SAVE_EVERY, passes, real = 0, 0, Frozen.at

def at(*words):
    global passes
    passes += 1
    if passes == int(limit):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*words)

Frozen.at = at
with join("cpu") as ranks:
    pictures = Pictures(size=32, crop="pad", eval_resize=None)
    loader = Loader(open_index(index).split("test"), pictures, Loading(threads=1), ranks.device, True)
    backbone = Backbone(Path("random"), "digest", Model(name="resnet8"), torch.load(weights), 5)
    found = features(backbone, loader, 7, Path(folder), ranks)
    assert found.shape == (45, 64)
"""


def test_killed_in_the_middle_and_for_any_number_of_ranks(counted, split, tmp_path):
    script, weights = tmp_path / "features.py", tmp_path / "weights.pth"
    script.write_text(SCRIPT)
    torch.save(counted.weights, weights)
    index = tmp_path / "index"
    write_index(Source("other", list("xyz"), {"test": drawn_pictures(45, 3, 11)}), index)
    words = [str(script), str(index), str(weights), str(tmp_path / "killed")]
    killed = subprocess.run([sys.executable, *words, "5"], env={"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not list((tmp_path / "killed").glob("*.npy"))
    with join("cpu") as ranks:
        (found,) = get(counted, split, tmp_path / "killed", ranks, batch=7)
    assert counted.passes == 3, "four of seven batches were sure"
    (theirs,) = expected(counted, split, [LAST])
    assert np.allclose(found, theirs, atol=1e-4)

    process = torchrun(2, *words[:-1], str(tmp_path / "two"), "0")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    (file,) = (tmp_path / "two").glob("*.npy")
    assert np.allclose(np.load(file, allow_pickle=False), theirs, atol=1e-4)


def test_pictures_that_cannot_be_shown_are_told_and_nothing_is_kept(backbone, tmp_path):
    job = photographs(tmp_path)
    damage(job, 3, 40)
    loader = Loader(
        open_index(job / "index").split("train"), Pictures(size=32, eval_resize=40), Loading(), CPU, True
    )
    with join("cpu") as ranks, pytest.raises(UserError, match=r"003\.jpg: .* \(2 such pictures\)"):
        features(backbone, loader, 16, tmp_path / "features", ranks)
    assert not list((tmp_path / "features").iterdir())
