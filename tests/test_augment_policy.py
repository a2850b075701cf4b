"""TrivialAugment and RandAugment: draws as pure functions, pixels as torchvision's on the same parameters."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st
from nvidia.dali import fn, pipeline_def
from PIL import Image
from scipy import ndimage, stats
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from pipeline.config import Augment
from pipeline.data import policy

SIDE = 64
NAMES = [operation.name for operation in policy.SUITES["trivial"]]
# From the weakest to the strongest of 31 bins: the papers' ranges, RandAugment's moves at SIDE pixels.
RANGES = {
    "trivial": {"translate": (0, 32), "shear": (0, 0.99), "rotate": (0, 135), "enhance": (0.01, 0.99)},
    "rand": {"translate": (0, 100 / 224 * SIDE), "shear": (0, 0.3), "rotate": (0, 30), "enhance": (0, 0.9)},
}
RANGES["trivial"] |= {"posterize": (8, 2), "solarize": (256, 0)}
RANGES["rand"] |= {"posterize": (8, 4), "solarize": (256, 0)}


@pipeline_def(enable_conditionals=True)
def changed(feed, names, augment):
    picture, *nodes = fn.external_source(feed, num_outputs=1 + len(names), batch=True)
    return policy.apply(fn.reshape(picture, layout="HWC"), dict(zip(names, nodes)), augment)  # noqa: B905


def run(pixels: np.ndarray, given: dict, augment: Augment, batch: int | None = None, threads: int = 1):
    """(N, S, S, 3) uint8 through DALI in batches of ``batch``."""
    batch = batch or len(pixels)
    starts = iter(range(0, len(pixels), batch))

    def feed() -> tuple:
        here = slice(start := next(starts), start + batch)
        return pixels[here], *(np.ascontiguousarray(values[here]) for values in given.values())

    settings = {"batch_size": batch, "num_threads": threads, "device_id": None, "exec_dynamic": True}
    pipe = changed(feed, list(given), augment, prefetch_queue_depth=1, **settings)
    pipe.build()
    return np.concatenate([np.array(pipe.run()[0].as_tensor()) for _ in range(0, len(pixels), batch)])


def photographs(n: int, seed: int = 4) -> np.ndarray:
    """(n, SIDE, SIDE, 3) uint8: smooth shapes with some fine grain, neither flat nor pure noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (n, 5, 5, 3), dtype=np.uint8)
    smooth = np.stack([Image.fromarray(each).resize((SIDE, SIDE), Image.BICUBIC) for each in coarse])
    return (smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)


def as_given(cases: np.ndarray) -> dict[str, np.ndarray]:
    """(N, 3) of operation, bin and sign as ``policy.inputs`` gives them."""
    columns = np.asarray(cases, np.int32).T
    return dict(zip(("policy_op", "policy_bin", "policy_sign"), columns[:, :, None], strict=True))


# Draws


def test_operations_strengths_and_signs_are_uniform_and_independent():
    n = 60_000
    found = policy.inputs(Augment(policy="trivial"), 5, np.arange(n), np.arange(n) % 7)
    op, strength, sign = (found[name][:, 0] for name in ("policy_op", "policy_bin", "policy_sign"))
    table = np.zeros((14, 31, 2), int)
    np.add.at(table, (op, strength, sign), 1)
    for axes in ((1, 2), (0, 2), (0, 1), ()):  # each by itself, then all together: no cell is favoured
        assert stats.chisquare(table.sum(axis=axes).ravel()).pvalue > 1e-3


def test_rand_augment_draws_operations_one_by_one_and_keeps_its_magnitude():
    n = 60_000
    augment = Augment(policy="rand", ops=2, magnitude=17)
    found = policy.inputs(augment, 5, np.arange(n), np.zeros(n, int))
    assert {name: values.shape for name, values in found.items()} == dict.fromkeys(found, (n, 2))
    assert {values.dtype for values in found.values()} == {np.dtype(np.int32)}
    assert np.unique(found["policy_bin"]).tolist() == [17]
    table = np.zeros((14, 14, 2, 2), int)
    np.add.at(table, (*found["policy_op"].T, *found["policy_sign"].T), 1)
    assert stats.chisquare(table.ravel()).pvalue > 1e-3


def test_without_a_policy_nothing_is_fed():
    assert policy.inputs(Augment(), 0, np.arange(3), np.zeros(3, int)) == {}


@hypothesis_given(
    seed=st.integers(0, 2**63 - 1),
    keys=st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 10**6)), min_size=1, max_size=40),
    order=st.randoms(use_true_random=False),
    kind=st.sampled_from(["trivial", "rand"]),
)
def test_draws_depend_on_nothing_but_seed_epoch_and_picture(seed, keys, order, kind):
    augment, (rows, epochs) = Augment(policy=kind), np.array(keys).T
    whole = policy.inputs(augment, seed, rows, epochs)
    some = np.array(order.sample(range(len(keys)), order.randint(1, len(keys))))
    part = policy.inputs(augment, seed, rows[some], epochs[some])
    for name, values in whole.items():
        assert np.array_equal(part[name], values[some]), name
    more = policy.inputs(augment.model_copy(update={"ops": 5}), seed, rows, epochs)
    assert np.array_equal(more["policy_op"][:, : whole["policy_op"].shape[1]], whole["policy_op"])


# Pixels


def magnitude(kind: str, name: str, strength: int, sign: int) -> float:
    key = name.split("_")[0]
    key = "enhance" if key in ("brightness", "contrast", "color", "sharpness") else key
    low, high = RANGES[kind].get(key, (0, 0))
    value = low + (high - low) * strength / 30
    return -value if sign and key not in ("posterize", "solarize") else value


def warped(picture: torch.Tensor, name: str, value: float, fill: float) -> torch.Tensor:
    how = {"interpolation": InterpolationMode.BILINEAR, "fill": [fill] * 3}
    along = [1.0, 0.0] if name.endswith("x") else [0.0, 1.0]
    if name == "rotate":
        return F.rotate(picture, value, **how)
    still = {"angle": 0.0, "scale": 1.0, "translate": [0, 0], "shear": [0.0, 0.0]}
    if name.startswith("translate"):
        return F.affine(picture, **(still | {"translate": [value * each for each in along]}), **how)
    # torchvision shears the other way for the same sign, which is as likely.
    degrees = math.degrees(math.atan(-value))
    return F.affine(picture, **(still | {"shear": [degrees * each for each in along]}), center=[0, 0], **how)


def opencv_equalized(picture: np.ndarray) -> np.ndarray:
    """OpenCV's equalizeHist, each channel by itself, from its definition."""
    out = np.empty_like(picture)
    for channel in range(3):
        histogram = np.bincount(picture[..., channel].ravel(), minlength=256)
        first = histogram[histogram.nonzero()[0][0]]
        table = (histogram.cumsum() - first) * (255 / (histogram.sum() - first))
        out[..., channel] = np.rint(table.clip(0, 255))[picture[..., channel]]
    return out


def torchvisions(picture: np.ndarray, name: str, value: float) -> np.ndarray:
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    found = {
        "brightness": lambda: F.adjust_brightness(tensor, 1 + value),
        "contrast": lambda: F.adjust_contrast(tensor, 1 + value),
        "color": lambda: F.adjust_saturation(tensor, 1 + value),
        "sharpness": lambda: F.adjust_sharpness(tensor, 1 + value),
        "posterize": lambda: F.posterize(tensor, round(value)),
        "solarize": lambda: F.solarize(tensor, value) if value <= 255 else tensor,
        "auto_contrast": lambda: F.autocontrast(tensor),
        "equalize": lambda: F.equalize(tensor),
        "identity": lambda: tensor,
    }
    return found[name]().permute(1, 2, 0).numpy()


# How far a pixel may be from torchvision's, of 255. torchvision (as Pillow) cuts fractions off where DALI
# rounds: 1; twice for contrast and colour, whose grey it cuts off as well; and DALI's colour matrix (YIQ) has
# three digits: 1 more.
BOUNDS = {"brightness": 1, "contrast": 2, "color": 3, "sharpness": 1}
BOUNDS |= {"posterize": 0, "solarize": 0, "auto_contrast": 1, "identity": 0}


@pytest.mark.parametrize("kind", ["trivial", "rand"])
def test_pixels_are_torchvisions_on_the_same_parameters(kind):
    cases = np.array([(op, b, s) for op in range(14) for b in (0, 3, 15, 22, 30) for s in (0, 1)])
    pictures = photographs(len(cases))
    ours = run(pictures, as_given(cases), Augment(policy=kind, ops=1))
    for (op, strength, sign), picture, got in zip(cases, pictures, ours, strict=True):
        name = NAMES[op]
        value = magnitude(kind, name, strength, sign)
        told = f"{name} {value}"
        if name.startswith(("translate", "shear", "rotate")):
            tensor = torch.from_numpy(picture).permute(2, 0, 1)
            want = warped(tensor, name, value, 128).permute(1, 2, 0).numpy()
            cover = warped(torch.ones(3, SIDE, SIDE), name, value, 0)[0].numpy()
            # Pixels within one of the picture's own edge are left out: there DALI blends with the grey, and
            # torchvision with the grey or the edge as the rounding of its own grid falls.
            covered = cover > 0.999, cover < 0.001
            whole, blank = (ndimage.binary_erosion(each, np.ones((3, 3)), border_value=1) for each in covered)
            assert (whole | blank).mean() > 0.9, told
            apart = np.abs(got.astype(int) - want)[whole | blank]
            assert apart.max() <= 1, told
            assert (got[blank] == 128).all(), told
        elif name == "equalize":
            # DALI's formula is OpenCV's; Pillow's, which torchvision follows, steps by whole numbers.
            assert np.abs(got.astype(int) - opencv_equalized(picture)).max() <= 1, told
            assert np.abs(got.astype(int) - torchvisions(picture, name, value)).max() <= 20, told
        else:
            want = torchvisions(picture, name, value)
            # torchvision, as Pillow, leaves the outermost pixels as they are; DALI sharpens them too.
            inner = np.s_[1:-1, 1:-1] if name == "sharpness" else np.s_[:]
            assert np.abs(got.astype(int) - want)[inner].max() <= BOUNDS[name], told


def test_no_strength_and_identity_leave_pixels_untouched():
    """Every operation of RandAugment that has a strength does nothing at strength 0."""
    ops = [op for op, name in enumerate(NAMES) if name not in ("equalize", "auto_contrast")]
    cases = np.array([(op, 0, sign) for op in ops for sign in (0, 1)])
    pictures = photographs(len(cases))
    assert np.array_equal(run(pictures, as_given(cases), Augment(policy="rand", ops=1)), pictures)
    cases = np.array([(NAMES.index("identity"), strength, 1) for strength in range(31)])
    assert np.array_equal(run(pictures[:24], as_given(cases[:24]), Augment(policy="trivial")), pictures[:24])


def test_pixels_are_bit_equal_in_other_batches_and_orders():
    pictures, rows = photographs(48), np.arange(48)
    augment = Augment(policy="trivial")
    given = policy.inputs(augment, 9, rows, rows % 3)
    whole = run(pictures, given, augment)
    assert (whole != pictures).any(axis=(1, 2, 3)).mean() > 0.8
    order = np.random.default_rng(1).permutation(48)
    given = policy.inputs(augment, 9, rows[order], rows[order] % 3)
    assert np.array_equal(run(pictures[order], given, augment, batch=6, threads=2), whole[order])


def test_operations_follow_one_another():
    pictures, rows = photographs(32), np.arange(32)
    both = Augment(policy="rand", ops=2, magnitude=12)
    given, step = policy.inputs(both, 2, rows, rows), Augment(policy="rand", ops=1, magnitude=12)
    first = run(pictures, {name: values[:, :1] for name, values in given.items()}, step)
    second = run(first, {name: values[:, 1:] for name, values in given.items()}, step)
    assert np.array_equal(run(pictures, given, both), second)
