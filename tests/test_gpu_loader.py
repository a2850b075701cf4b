"""DALI on a GPU against DALI on a CPU: the same pictures, crops, order, and pixels within a bound.

Bounds are of pixels in 0..255, seen on a CPU where the GPU's way of computing could be had there: DALI's
scaling differs from torch's by at most 3 and by 0.19 on average (24 photographs). A GPU's decoder may round
colours otherwise, and where a JPEG has colours at half resolution (4:2:0) repeats them instead of
interpolating: 2.9 on average, by the formulas. Another crop, or one by a pixel beside, differs by 6 and more.
"""

import numpy as np
import pytest
import torch
from gpu_small import SMALL, batches, loader, of, on_devices, pixels, train_split
from odd_pictures import encoded, photograph

from pipeline.config import Augment, Pictures
from pipeline.data.batches import evaluation_rows
from pipeline.data.index import Split, open_index
from pipeline.data.prepare import write_index
from pipeline.data.sources import Files, Source

KINDS = {
    "png": ("PNG", {}, 0.5, 4.0),
    "jpeg-444": ("JPEG", {"subsampling": 0}, 1.5, 14.0),
    "jpeg-420": ("JPEG", {"subsampling": 2}, 4.5, 60.0),
}
"""Pillow's kind and words, and the largest mean and single difference of a picture's pixels."""
MEAN, MOST = 2, 3
COUNT, BATCH = 12, 6


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, Split]:
    """Of each kind the same photographs of many shapes."""
    root, found = tmp_path_factory.mktemp("kinds"), {}
    for kind, (form, how, *_) in KINDS.items():
        rng, paths = np.random.default_rng(4), [f"{kind}-{number}.{form.lower()}" for number in range(COUNT)]
        for path in paths:
            shape = int(rng.integers(120, 400)), int(rng.integers(120, 500))
            (root / path).write_bytes(encoded(photograph(rng, *shape), form, **how))
        pictures = Files(root, paths, np.arange(COUNT) % 4)
        write_index(Source(kind, list("abcd"), {"train": pictures}), root / kind)
        found[kind] = open_index(root / kind).split("train")
    return found


def near(ours: np.ndarray, theirs: np.ndarray, kind: str, record_property) -> None:
    """Each picture by itself; what was seen is told."""
    off = np.abs(ours - theirs).reshape(len(ours), -1)
    record_property("mean", float(off.mean(1).max()))
    record_property("most", float(off.max()))
    assert off.mean(1).max() <= KINDS[kind][MEAN]
    assert off.max() <= KINDS[kind][MOST]


@on_devices
@pytest.mark.parametrize("kind", KINDS)
def test_training_pictures_are_the_cpus(device, kind, splits, record_property):
    pictures = Pictures(size=96)
    ours, theirs = (batches(loader(splits[kind], pictures, each), BATCH, 0, 3) for each in (device, "cpu"))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.images.device == of(device)
        assert np.array_equal(mine.rows, other.rows)
        assert torch.equal(mine.labels.cpu(), other.labels)
        assert mine.faults == ()
    together = [np.concatenate([pixels(one.images, pictures) for one in each]) for each in (ours, theirs)]
    near(*together, kind, record_property)


@on_devices
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluation_pictures_are_the_cpus(device, interpolation, splits, record_property):
    pictures = Pictures(size=96, eval_resize=112, interpolation=interpolation)

    def seen(each: str) -> np.ndarray:
        given = loader(splits["jpeg-444"], pictures, each)
        found = list(given.evaluation(evaluation_rows(COUNT, 8, 0, 1), 8))
        assert [float(one.weight.sum()) for one in found] == [8, 4]
        return np.concatenate([pixels(one.images, pictures) for one in found])[:COUNT]

    near(seen(device), seen("cpu"), "jpeg-444", record_property)


@on_devices
def test_a_loader_begun_later_shows_the_same(device, splits, record_property):
    """Begun at step 2, with other batches ahead and another decoder's share: order, crops and pixels."""
    pictures = Pictures(size=96)
    whole = batches(loader(splits["jpeg-420"], pictures, device), BATCH, 0, 4)
    later = batches(loader(splits["jpeg-420"], pictures, device), BATCH, 2, 4)
    other = batches(loader(splits["jpeg-420"], pictures, device, prefetch=3, hardware_load=0.0), BATCH, 2, 4)
    for mine, again, otherwise in zip(whole[2:], later, other, strict=True):
        assert np.array_equal(mine.rows, again.rows)
        assert np.array_equal(mine.rows, otherwise.rows)
        near(pixels(mine.images, pictures), pixels(otherwise.images, pictures), "jpeg-420", record_property)
        near(pixels(mine.images, pictures), pixels(again.images, pictures), "png", record_property)
    bits = all(torch.equal(mine.images, again.images) for mine, again in zip(whole[2:], later, strict=True))
    record_property("to the bit", bits)


@on_devices
def test_raw_pictures_are_exact(device, small_index):
    """Nothing is decoded or scaled: padded, cut, mirrored and normalised alike, to rounding."""
    split = train_split(small_index)
    ours, theirs = (batches(loader(split, SMALL, each), 50, 0, 3) for each in (device, "cpu"))
    for mine, other in zip(ours, theirs, strict=True):
        assert np.array_equal(mine.rows, other.rows)
        torch.testing.assert_close(mine.images.cpu(), other.images, rtol=1e-5, atol=1e-5)


@on_devices
def test_changed_and_blanked_pictures_are_the_cpus(device, small_index, record_property):
    """TrivialAugment's operations on the same pixels round differently; a rectangle is blanked exactly."""
    pictures = SMALL.model_copy(update={"augment": Augment(policy="trivial", erase=1.0)})
    split = train_split(small_index)
    (ours,), (theirs,) = (batches(loader(split, pictures, each), 50, 0, 1) for each in (device, "cpu"))
    assert torch.equal(blank(ours.images), blank(theirs.images))
    assert blank(theirs.images).flatten(1).any(1).float().mean() > 0.9
    off = np.abs(pixels(ours.images, pictures) - pixels(theirs.images, pictures)).reshape(50, -1).mean(1)
    record_property("mean", float(off.max()))
    assert off.max() <= 2.0


def blank(images: torch.Tensor) -> torch.Tensor:
    """(b, S, S) bool: the mean colour, which no pixel of a picture has to the bit."""
    return (images.cpu() == 0).all(1)


@on_devices
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_pictures_lie_as_they_should(device, dtype, splits):
    """In the step's own type and memory format, within the type's rounding of the wide ones."""
    pictures = Pictures(size=64)
    (wide,) = batches(loader(splits["png"], pictures, device), BATCH, 0, 1)
    (narrow,) = batches(loader(splits["png"], pictures, device, dtype=dtype), BATCH, 0, 1)
    assert narrow.images.dtype == dtype
    assert narrow.images.is_contiguous(memory_format=torch.channels_last)
    rounding = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(narrow.images.float(), wide.images, rtol=rounding, atol=rounding)


@on_devices
def test_a_batch_survives_the_ones_that_follow(device, small_index):
    """DALI must not write into one that is still held."""
    split = train_split(small_index)
    given = loader(split, SMALL, device).evaluation(evaluation_rows(len(split), 10, 0, 1), 10)
    held = [(each.images, each.images.clone()) for each in given]
    assert len(held) == 25
    assert all(torch.equal(images, copy) for images, copy in held)


@on_devices
def test_a_damaged_picture_is_replaced_as_on_a_cpu(device, splits, tmp_path):
    """The same other one stands in for it, and is named."""
    source = splits["jpeg-420"]
    names = [source.path(row) for row in range(COUNT)]
    for name in names:
        (tmp_path / name).write_bytes((source.root / name).read_bytes())
    pictures = Files(tmp_path, names, np.arange(COUNT) % 4)
    write_index(Source("damaged", list("abcd"), {"train": pictures}), tmp_path / "index")
    split = open_index(tmp_path / "index").split("train")
    (tmp_path / names[5]).write_bytes((tmp_path / names[5]).read_bytes()[:400])
    ours, theirs = (batches(loader(split, Pictures(size=64), each), BATCH, 0, 2) for each in (device, "cpu"))
    told = [[fault.row for batch in each for fault in batch.faults] for each in (ours, theirs)]
    assert told[0] == told[1] == [5]
    for mine, other in zip(ours, theirs, strict=True):
        assert np.array_equal(mine.rows, other.rows)
