"""Random erasing: torchvision's rectangles, as pure functions of (seed, epoch, picture)."""

import numpy as np
import pytest
import torch
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st
from nvidia.dali import fn, pipeline_def, types
from scipy import stats
from torchvision.transforms import RandomErasing

from pipeline.config import Augment
from pipeline.data import erase


def drawn(n: int, side: int, share: float = 1.0, seed: int = 3) -> np.ndarray:
    """(n, 4): top, left, height, width."""
    found = erase.inputs(Augment(erase=share), side, seed, np.arange(n), np.zeros(n, int))
    return np.concatenate(list(found.values()), axis=1)


@pytest.mark.parametrize("side", [224, 32])
def test_rectangles_follow_torchvisions_random_erasing(side):
    n = 4000
    torch.manual_seed(0)
    picture = torch.empty(3, side, side)
    theirs = [RandomErasing.get_params(picture, (0.02, 0.33), (0.3, 3.3), [0]) for _ in range(n)]
    theirs, ours = np.array([each[:4] for each in theirs], float), drawn(n, side)
    for name, measure in {
        "area": lambda w: w[:, 2] * w[:, 3],
        "aspect": lambda w: w[:, 2] / w[:, 3],
        "top": lambda w: w[:, 0],
        "left": lambda w: w[:, 1],
        "below": lambda w: side - w[:, 0] - w[:, 2],
    }.items():
        pvalue = stats.ks_2samp(measure(ours), measure(theirs)).pvalue
        assert pvalue > 1e-3, f"{name}: {pvalue}"


def test_areas_are_uniform_and_as_many_pictures_are_erased_as_configured():
    areas = drawn(20_000, 1000)[:, 2:].prod(axis=1) / 1000**2
    # Rectangles longer than the picture are drawn again, which thins out the large areas; none below 0.3,
    # where the longest side is at most sqrt(0.3 * 3.3) of the picture's.
    small = areas[areas < 0.3]
    assert stats.kstest(small, "uniform", (0.02, 0.28)).pvalue > 1e-3
    assert areas.max() < 0.331
    for share in (0.25, 0.9):
        erased = drawn(20_000, 32, share)[:, 2] > 0
        assert abs(erased.mean() - share) < 0.015
        # What is erased does not depend on how often.
        assert np.array_equal(drawn(20_000, 32, share)[erased], drawn(20_000, 32)[erased])
    assert erase.inputs(Augment(), 32, 3, np.arange(5), np.zeros(5, int)) == {}


@hypothesis_given(
    seed=st.integers(0, 2**63 - 1),
    keys=st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 10**6)), min_size=1, max_size=40),
    order=st.randoms(use_true_random=False),
    side=st.integers(2, 400),
)
def test_rectangles_depend_on_their_key_alone_and_lie_inside(seed, keys, order, side):
    augment, (rows, epochs) = Augment(erase=0.7), np.array(keys).T
    whole = erase.inputs(augment, side, seed, rows, epochs)
    some = np.array(order.sample(range(len(keys)), order.randint(1, len(keys))))
    part = erase.inputs(augment, side, seed, rows[some], epochs[some])
    for name, values in whole.items():
        assert np.array_equal(part[name], values[some]), name
    assert (whole["erase_start"] >= 0).all()
    assert (whole["erase_start"] + whole["erase_shape"] <= side).all()
    assert (whole["erase_shape"] < side).all()
    assert np.array_equal(whole["erase_start"], np.rint(whole["erase_start"]))


@pipeline_def
def erased(feed, names, layout, kind):
    picture, *nodes = fn.external_source(feed, num_outputs=1 + len(names), batch=True)
    how = {"mean": [120.0] * 3, "std": [60.0] * 3, "dtype": kind, "output_layout": layout}
    normalised = fn.crop_mirror_normalize(fn.reshape(picture, layout="HWC"), **how)
    return normalised, erase.apply(normalised, dict(zip(names, nodes, strict=True)))


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
@pytest.mark.parametrize("kind", [types.FLOAT, types.FLOAT16])
@pytest.mark.parametrize("share", [0.6, 0.0])
def test_pixels_within_the_rectangle_are_zero_and_no_others_change(layout, kind, share):
    n, side = 40, 24
    pixels = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    found = erase.inputs(Augment(erase=share), side, 1, np.arange(n), np.zeros(n, int))
    settings = {"batch_size": n, "num_threads": 1, "device_id": None, "exec_dynamic": True}
    pipe = erased(lambda: (pixels, *found.values()), list(found), layout, kind, **settings)
    pipe.build()
    plain, ours = (np.array(out.as_tensor()) for out in pipe.run())
    assert ours.dtype == plain.dtype == (np.float32 if kind == types.FLOAT else np.float16)
    want = plain.copy()
    if found:
        corners = np.concatenate([found["erase_start"], found["erase_start"] + found["erase_shape"]], axis=1)
        for picture, (top, left, bottom, right) in zip(want, corners.astype(int), strict=True):
            view = picture if layout == "HWC" else picture.transpose(1, 2, 0)
            view[top:bottom, left:right] = 0
        assert not np.array_equal(want, plain)
    assert np.array_equal(ours, want)
