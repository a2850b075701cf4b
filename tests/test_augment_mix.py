"""Mixup and cutmix: pairs mixed as a plain loop would, the same wherever a batch is cut."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.nn import functional as F
from torchvision.transforms import v2

from pipeline.config import Augment
from pipeline.data.mix import Mix, mix, plan
from pipeline.train.loss import cross_entropy

BOTH = Augment(mixup=0.2, cutmix=1.0)
KINDS = {"mixup": Augment(mixup=0.4), "cutmix": Augment(cutmix=1.0), "both": BOTH}


def pairs(n: int, augment: Augment, side: int = 224, seed: int = 2):
    return plan(augment, side, seed, np.arange(n), np.zeros(n, int))


def batch(b: int, side: int = 32, seed: int = 0):
    """Images, labels, rows and epochs."""
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.normal(size=(b, 3, side, side)).astype(np.float32))
    return (
        images,
        torch.from_numpy(rng.integers(0, 10, b)),
        rng.permutation(10 * b)[:b],
        rng.integers(0, 3, b),
    )


def looped(images: np.ndarray, rows: np.ndarray, epochs: np.ndarray, seed: int, augment: Augment):
    """The same, pair by pair and in plain numpy float32, from the plan; shares by counting pixels."""
    side, out, shares = images.shape[2], images.copy(), []
    boxes, inside, _ = plan(augment, side, seed, rows[::2], epochs[::2])
    for k, ((top, left, bottom, right), weight) in enumerate(
        zip(boxes, inside.astype(np.float32), strict=True)
    ):
        one, other = images[2 * k], images[2 * k + 1]
        window = np.s_[:, top:bottom, left:right]
        out[2 * k][window] = one[window] * weight + other[window] * (1 - weight)
        out[2 * k + 1][window] = other[window] * weight + one[window] * (1 - weight)
        theirs = (1 - float(inside[k])) * (bottom - top) * (right - left)
        shares += [1 - theirs / side**2] * 2
    return out, np.array(shares)


# Draws


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixups_weights_are_beta(alpha):
    box, inside, share = pairs(20_000, Augment(mixup=alpha))
    assert (box == [0, 0, 224, 224]).all()
    assert np.array_equal(inside, share)
    assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_cutmixs_boxes_follow_torchvisions(alpha):
    n = 3000
    torch.manual_seed(0)
    transform, picture = v2.CutMix(num_classes=2, alpha=alpha), [torch.empty(1, 3, 224, 224)]
    theirs = [transform.make_params(picture) for _ in range(n)]
    box, inside, share = pairs(n, Augment(cutmix=alpha))
    assert not inside.any()
    their_box = np.array([each["box"] for each in theirs])[:, [1, 0, 3, 2]]
    assert stats.ks_2samp(share, [each["lam_adjusted"] for each in theirs]).pvalue > 1e-3
    for ours, other in zip(box.T, their_box.T, strict=True):
        assert stats.ks_2samp(ours, other).pvalue > 1e-3


def test_both_are_drawn_evenly_and_each_as_if_alone():
    box, inside, share = pairs(20_000, BOTH)
    is_mixup = inside > 0
    assert abs(is_mixup.mean() - 0.5) < 0.015
    for chosen, alone in ((is_mixup, Augment(mixup=0.2)), (~is_mixup, Augment(cutmix=1.0))):
        for ours, other in zip((box, inside, share), pairs(20_000, alone), strict=True):
            assert np.array_equal(ours[chosen], other[chosen])


def test_only_mixing_needs_even_batches():
    assert not any(augment.in_pairs for augment in (Augment(), Augment(policy="rand", erase=0.5)))
    assert all(augment.in_pairs for augment in KINDS.values())
    with pytest.raises(AssertionError):
        mix(*batch(5), 0, BOTH)


# Pixels and labels


@pytest.mark.parametrize("augment", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("side", [32, 45])
def test_pixels_and_shares_are_a_plain_loops(augment, side):
    images, labels, rows, epochs = batch(64, side)
    mixed, found = mix(images, labels, rows, epochs, 7, augment)
    want, shares = looped(images.numpy(), rows, epochs, 7, augment)
    assert np.array_equal(mixed.numpy(), want)
    assert np.array_equal(found.other.numpy().reshape(-1, 2), labels.numpy().reshape(-1, 2)[:, ::-1])
    assert np.abs(found.share.numpy() - shares).max() < 1e-7
    assert found.share.dtype == torch.float32
    assert found.other.dtype == torch.int64


def test_cutmixs_shares_are_the_pixels_that_are_left():
    """Pictures of ones beside pictures of zeros: the mean is the share."""
    images = torch.tensor([1.0, 0.0]).repeat(50)[:, None, None, None].expand(100, 3, 32, 32)
    mixed, found = mix(images, torch.zeros(100, dtype=torch.int64), *batch(100)[2:], 1, Augment(cutmix=1.0))
    own = torch.where(torch.arange(100) % 2 == 0, mixed.mean((1, 2, 3)), 1 - mixed.mean((1, 2, 3)))
    assert set(mixed.unique().tolist()) == {0.0, 1.0}
    assert torch.equal((own * 1024).round(), (found.share * 1024).round())
    assert (own - found.share).abs().max() < 1e-6


@given(
    seed=st.integers(0, 2**63 - 1),
    cuts=st.lists(st.integers(1, 11), max_size=4),
    kind=st.sampled_from(sorted(KINDS)),
)
def test_mixing_is_bit_equal_in_other_batches(seed, cuts, kind):
    images, labels, rows, epochs = batch(24, side=9)
    images = images.contiguous(memory_format=torch.channels_last)
    whole, found = mix(images, labels, rows, epochs, seed, KINDS[kind])
    edges = [0, *sorted({2 * cut for cut in cuts}), 24]
    for here in (slice(start, stop) for start, stop in pairwise(edges)):
        part, own = mix(images[here], labels[here], rows[here], epochs[here], seed, KINDS[kind])
        assert torch.equal(part, whole[here])
        assert torch.equal(own.other, found.other[here])
        assert torch.equal(own.share, found.share[here])


def test_several_labels_a_picture_change_places_with_their_picture():
    images, _, rows, epochs = batch(8)
    labels = torch.arange(40).reshape(8, 5)
    other = mix(images, labels, rows, epochs, 1, BOTH)[1].other
    assert torch.equal(other, labels[[1, 0, 3, 2, 5, 4, 7, 6]])


def test_pairs_are_mixed_anew_every_epoch_and_seed():
    images, labels, rows, epochs = batch(24)
    once = mix(images, labels, rows, epochs, 1, BOTH)[1].share
    assert torch.equal(once, mix(images, labels, rows, epochs, 1, BOTH)[1].share)
    for other in (mix(images, labels, rows, epochs + 1, 1, BOTH), mix(images, labels, rows, epochs, 2, BOTH)):
        assert (other[1].share == once).float().mean() < 0.3


@pytest.mark.parametrize("augment", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_dtype_and_memory_format_are_kept(augment, dtype, layout):
    """Half precision is computed in float32 and rounded once."""
    images, labels, rows, epochs = batch(16)
    images = images.to(dtype).contiguous(memory_format=layout)
    before = images.clone()
    mixed, _ = mix(images, labels, rows, epochs, 3, augment)
    assert mixed.is_contiguous(memory_format=layout)
    assert torch.equal(images, before)
    exact, _ = mix(images.float(), labels, rows, epochs, 3, augment)
    assert mixed.dtype == dtype
    assert torch.equal(mixed, exact.to(dtype))


# Loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_cross_entropy_with_the_mixed_label(smoothing):
    images, labels, rows, epochs = batch(16)
    logits = torch.randn(16, 10, generator=torch.manual_seed(0), dtype=torch.float64, requires_grad=True)
    _, found = mix(images, labels, rows, epochs, 3, BOTH)
    share = found.share.double()[:, None]
    soft = share * F.one_hot(labels, 10) + (1 - share) * F.one_hot(found.other, 10)
    want = F.cross_entropy(logits, soft, label_smoothing=smoothing)
    ours = cross_entropy(logits, labels, found, smoothing)
    assert ours.item() == pytest.approx(want.item(), rel=1e-7)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, want)]
    assert torch.allclose(*gradients, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_mixing_the_loss_is_torchs_own(smoothing):
    logits, labels = torch.randn(16, 10, generator=torch.manual_seed(0)), batch(16)[1]
    own = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert torch.equal(cross_entropy(logits, labels, None, smoothing), own)
    unmixed = Mix(labels.flip(0), torch.ones(16))
    assert cross_entropy(logits, labels, unmixed, smoothing).item() == pytest.approx(own.item(), rel=1e-6)
