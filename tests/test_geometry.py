"""Draws, crops and flips: torchvision's distributions, as pure functions of (seed, epoch, picture)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import RandomResizedCrop, v2

from pipeline.config import Pictures
from pipeline.data import draws
from pipeline.data.geometry import LONGEST, for_evaluation, for_training

ONES = np.uint64(0xFFFFFFFF)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # Random123's kat_vectors for philox4x32-10
        ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ONES] * 4, (ONES, ONES), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, words):
    found = draws.philox([np.array([word], np.uint64) for word in counter], key)
    assert [int(word[0]) for word in found] == words


def test_draws_are_uniform_and_differ_by_everything_in_their_key():
    pictures, epochs = np.arange(20_000), np.zeros(20_000, np.int64)
    base = draws.uniform(3, pictures, epochs, 1, draws.CROP)
    assert base.min() >= 0
    assert base.max() < 1
    for column in base.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    for other in (
        draws.uniform(3, pictures, epochs + 1, 1, draws.CROP),
        draws.uniform(3, pictures, epochs, 2, draws.CROP),
        draws.uniform(3, pictures, epochs, 1 + 2**32, draws.CROP),
        draws.uniform(3, pictures, epochs, 1, draws.FLIP),
        draws.uniform(3, pictures[::-1], epochs, 1, draws.CROP),
    ):
        assert abs(np.corrcoef(base[:, 0], other[:, 0])[0, 1]) < 0.03


def random_crops(n: int, height: int, width: int, pictures: Pictures, seed: int = 0):
    rows = np.arange(n)
    return for_training(pictures, seed, rows, np.zeros(n, int), np.full(n, height), np.full(n, width))


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (40, 600), (600, 40), (64, 64)])
def test_crops_follow_torchvisions_random_resized_crop(height, width):
    n = 4000
    pictures = Pictures()
    ours = random_crops(n, height, width, pictures).window.astype(float)
    torch.manual_seed(0)
    picture = torch.empty(3, height, width)
    theirs = [RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)]
    theirs = np.array(theirs, float)
    for name, measure in {
        "area": lambda w: w[:, 2] * w[:, 3],
        "aspect": lambda w: w[:, 3] / w[:, 2],
        "top": lambda w: w[:, 0],
        "left": lambda w: w[:, 1],
    }.items():
        pvalue = stats.ks_2samp(measure(ours), measure(theirs)).pvalue
        assert pvalue > 1e-3, f"{name}: {pvalue}"


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10**6),
)
def test_random_resized_windows_lie_inside_the_picture(height, width, seed, epoch):
    rows = np.arange(20)
    got = for_training(
        Pictures(), seed, rows, np.full(20, epoch), np.full(20, height), np.full(20, width)
    ).window
    assert (got[:, :2] >= 0).all()
    assert (got[:, 2:] >= 1).all()
    assert (got[:, 0] + got[:, 2] <= height).all()
    assert (got[:, 1] + got[:, 3] <= width).all()


def test_a_crop_depends_on_nothing_but_its_key():
    """Neither on the batch it is computed in, nor on the other pictures' shapes."""
    pictures, rng = Pictures(), np.random.default_rng(0)
    rows, epochs = np.arange(50), rng.integers(0, 9, 50)
    heights, widths = rng.integers(30, 500, 50), rng.integers(30, 500, 50)
    whole = for_training(pictures, 3, rows, epochs, heights, widths)
    for some in (np.array([7]), np.array([49, 3, 12]), rng.permutation(50)):
        part = for_training(pictures, 3, rows[some], epochs[some], heights[some], widths[some])
        assert np.array_equal(part.window, whole.window[some])
        assert np.array_equal(part.flip, whole.flip[some])


def test_padded_crops_take_every_place_equally_often():
    pictures = Pictures(size=32, crop="pad", pad=4, eval_resize=None)
    window = random_crops(40_000, 32, 32, pictures).window
    assert (window[:, 2:] == 32).all()
    places = np.bincount((window[:, 0] + 4) * 9 + window[:, 1] + 4, minlength=81)
    assert len(places) == 81
    assert stats.chisquare(places).pvalue > 1e-3


def test_flips_are_half_or_as_configured_and_independent_of_crops():
    geometry = random_crops(20_000, 300, 400, Pictures())
    assert abs(geometry.flip.mean() - 0.5) < 0.015
    assert abs(np.corrcoef(geometry.flip, geometry.window[:, 1])[0, 1]) < 0.03
    assert random_crops(100, 300, 400, Pictures(flip=0.0)).flip.sum() == 0
    assert random_crops(100, 300, 400, Pictures(flip=1.0)).flip.sum() == 100


@given(epoch=st.integers(0, 1000), seed=st.integers(0, 2**63 - 1))
def test_alternating_flips_show_both_sides_in_each_pair_of_epochs(epoch, seed):
    def flips(epoch: int, alternately: bool) -> np.ndarray:
        rows, pictures = np.arange(400), Pictures(flip_alternately=alternately)
        sides = np.full(400, 300)
        return for_training(pictures, seed, rows, np.full(400, epoch), sides, sides).flip

    now, then = flips(epoch, True), flips(epoch + 1, True)
    assert (now + then == 1).all()
    assert 120 < now.sum() < 280  # within 8 standard deviations of a half
    assert np.array_equal(flips(0, True), flips(0, False)), "the first epoch is drawn as ever"


@given(height=st.integers(1, 2000), width=st.integers(1, 2000), resize=st.integers(224, 512))
def test_evaluation_sizes_are_torchvisions(height, width, resize):
    found = for_evaluation(Pictures(eval_resize=resize), np.array([height]), np.array([width]))
    scaled = v2.functional.resize(torch.empty(1, height, width, device="meta"), [resize]).shape[1:]
    top, left = (round((side - 224) / 2.0) for side in scaled)
    if max(height, width) <= LONGEST * min(height, width):
        assert found.size[0].tolist() == list(scaled)
        assert found.corner[0].tolist() == [top, left]
        assert found.window[0].tolist() == [0, 0, height, width]
    else:  # only the middle is looked at
        assert found.size[0].max() <= LONGEST * resize
        assert np.abs(found.window[0, :2] * 2 + found.window[0, 2:] - [height, width]).max() <= 1
