"""Everything switched on at once is still a function of (seed, epoch, picture): elastic like the crop."""

import numpy as np
import pytest
import torch
from test_loader import photographs

from pipeline.config import Augment, Loading, Pictures, Progressive, UserError
from pipeline.data.batches import Batch, training_rows
from pipeline.data.loader import Loader
from pipeline.data.order import Order

CPU = torch.device("cpu")
__all__ = ["photographs"]  # a fixture
GROWING = Progressive(start=64, epochs=[0.5, 2.0])


def config(policy: str) -> Pictures:
    augment = Augment(policy=policy, erase=0.5, mixup=0.2, cutmix=1.0)
    return Pictures(size=128, progressive=GROWING, augment=augment)


def steps(split, pictures: Pictures, world: int, accumulate: int, start: int, stop: int) -> list[list[Batch]]:
    order, n = Order(len(split), 12, 21), len(split)
    streams = []
    for rank in range(world):

        def side(step: int) -> int:
            return pictures.progressive.side(step * 12 / n, pictures.size)

        rows = training_rows(order, rank, world, accumulate, start, stop, side)
        loader = Loader(split, pictures, Loading(threads=1 + rank % 2), CPU, True)
        micro = list(loader.training(rows, 12 // world // accumulate, 21))
        streams.append([micro[i : i + accumulate] for i in range(0, len(micro), accumulate)])
    return [[batch for part in step for batch in part] for step in zip(*streams, strict=True)]


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_all_augmentations_together_are_elastic(policy, photographs):
    """2 ranks, stopped after step 2, continued at 3 ranks x 2 accumulated: what 1 rank sees, bit by bit."""
    pictures = config(policy)
    straight = steps(photographs, pictures, 1, 1, 0, 5)
    pieces = steps(photographs, pictures, 2, 1, 0, 2) + steps(photographs, pictures, 3, 2, 2, 5)
    for number, (ours, (theirs,)) in enumerate(zip(pieces, straight, strict=True)):
        assert torch.equal(torch.cat([batch.images for batch in ours]), theirs.images), f"step {number}"
        assert torch.equal(torch.cat([batch.mix.other for batch in ours]), theirs.mix.other)
        assert torch.equal(torch.cat([batch.mix.share for batch in ours]), theirs.mix.share)
    assert [step[0].images.shape[2] for step in straight] == [64, 64, 64, 96, 128]


def test_sides_grow_by_the_schedule():
    sides = [GROWING.side(epoch, 128) for epoch in np.arange(0, 2.6, 0.25)]
    assert sides == sorted(sides)
    assert (sides[0], sides[-1]) == (64, 128)
    assert {side % 32 for side in sides} == {0}
    whole = Progressive(start=160, epochs=[0, 16])
    assert [whole.side(epoch, 224) for epoch in (0, 4, 8, 12, 15.9, 16, 90)] == [
        160,
        160,
        192,
        192,
        192,
        224,
        224,
    ]


def test_growing_windows_are_those_of_the_full_size(photographs):
    """Only the side changes: the same window of each picture is scaled to fewer pixels."""
    small, full = Pictures(size=128, progressive=GROWING), Pictures(size=128)
    (ours,), *_ = steps(photographs, small, 1, 1, 0, 1)
    rows = training_rows(Order(len(photographs), 12, 21), 0, 1, 1, 0, 1)
    theirs = next(Loader(photographs, full, Loading(), CPU, True).training(rows, 12, 21))
    scaled = torch.nn.functional.interpolate(theirs.images, size=64, mode="area")
    assert (ours.images - scaled).abs().mean() < 0.1


def test_growing_needs_windows_that_are_scaled():
    with pytest.raises(ValueError, match="progressive: needs crop: random_resized"):
        Pictures(size=32, crop="pad", progressive=Progressive(start=16, epochs=[0, 2]), eval_resize=None)
    with pytest.raises(ValueError, match=r"progressive\.start: 256 is more than size 224"):
        Pictures(progressive=Progressive(start=256, epochs=[0, 2]))
    with pytest.raises(ValueError, match=r"epochs: \[3.0, 2.0\] runs backwards"):
        Progressive(start=16, epochs=[3.0, 2.0])


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_pictures_come_in_the_models_dtype(photographs, dtype, bound):
    """Rounded to nearest: at most half a step of the format away, at values up to 2.7."""
    rows = lambda: training_rows(Order(len(photographs), 12, 21), 0, 1, 1, 0, 1)  # noqa: E731
    exact = next(Loader(photographs, Pictures(size=96), Loading(), CPU, True).training(rows(), 12, 21)).images
    loader = Loader(photographs, Pictures(size=96), Loading(), CPU, True, dtype)
    found = next(loader.training(rows(), 12, 21)).images
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found.float() - exact).abs().max() < bound


def test_pairs_need_an_even_micro_batch(small_index, tmp_path):
    from conftest import quick_config

    from pipeline.train.plan import Plan

    config = quick_config(small_index, tmp_path, data__pictures__augment={"mixup": 0.2})
    assert Plan.of(config, 250, 2).micro_batch == 12
    with pytest.raises(UserError, match=r"train\.batch: 24 gives each of 8 ranks micro-batches of 3; mixup"):
        Plan.of(config, 250, 8)
