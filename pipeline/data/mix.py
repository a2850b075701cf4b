"""Mixup and cutmix: two pictures exchange content, and their labels count in the same proportion.

The pictures at places 2k and 2k + 1 of a batch are mixed with each other. Neighbours in the global
order, which is a random permutation, are random partners; and since every micro-batch is even, a pair
never lies on two ranks or in two micro-batches. What is done to a pair is a function of (seed, epoch, its
first picture) alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Augment
from pipeline.data import draws


@dataclass(frozen=True)
class Mix:
    other: Tensor  # as the labels, but the partner's
    share: Tensor  # (b,) float32, weight of the own label; the partner's is 1 - share


def mix(
    images: Tensor, labels: Tensor, rows: np.ndarray, epochs: np.ndarray, seed: int, augment: Augment
) -> tuple[Tensor, Mix]:
    """The mixed pictures, in the dtype, on the device and in the memory format of ``images``.

    :param images: (b, 3, S, S) floats, b even.
    :param labels: (b,) int64, or (b, C) of several labels a picture; on the same device.
    :param rows: (b,) picture numbers, on the host; ``epochs`` likewise.
    """
    b, _, side, _ = images.shape
    assert b % 2 == 0, b
    box, inside, share = plan(augment, side, seed, rows[::2], epochs[::2])
    small = torch.from_numpy(np.column_stack([box, inside, share]).astype(np.float32))
    top, left, bottom, right, inside, share = small.to(images.device, non_blocking=True).T

    def each(values: Tensor) -> Tensor:
        return values[:, None, None, None, None]

    line = torch.arange(side, device=images.device)
    y, x = line[:, None], line
    within = (y >= each(top)) & (y < each(bottom)) & (x >= each(left)) & (x < each(right))
    own = torch.where(within, each(inside), 1)  # (b/2, 1, 1, S, S): weight of a picture's own pixels
    pairs = images.unflatten(0, (-1, 2))
    # Two products and a sum, each rounded by itself: whether torch.lerp fuses them depends on the vector
    # instructions, and so on the place in the batch.
    mixed = pairs * own
    mixed += pairs.flip(1) * (1 - own)
    other = labels.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return mixed.flatten(0, 1).to(images.dtype), Mix(other, share.repeat_interleave(2))


def plan(
    augment: Augment, side: int, seed: int, rows: np.ndarray, epochs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is done to each pair, whose first pictures are given; mixup or cutmix must be on.

    Mixup (Zhang et al. 2018): both pictures all over, the own one with weight lambda ~ Beta(alpha, alpha).
    Cutmix (Yun et al. 2019, equations 1 and 2): a box of area share 1 - lambda around a uniform centre,
    clipped to the picture, is the partner's; the label counts by the pixels that are left.

    :param side: of the square pictures, pixels.
    :param rows: (P,) picture numbers; ``epochs`` likewise.
    :return: box (P, 4) int64: top, left, bottom, right; the own picture's weight inside it, (P,) float64
        (outside it is 1); the own label's weight, (P,) float64.
    """
    from scipy.special import betaincinv  # 0.3 s to import, and most runs mix nothing

    assert augment.in_pairs
    u = draws.uniform(4, rows, epochs, seed, draws.MIX)
    mixup_share = 0.5 if augment.mixup and augment.cutmix else float(augment.mixup > 0)
    is_mixup = u[:, 0] < mixup_share
    alpha = np.where(is_mixup, augment.mixup, augment.cutmix)
    weight = betaincinv(alpha, alpha, u[:, 1])  # the Beta distribution's inverse CDF

    half = np.floor(0.5 * np.sqrt(1 - weight) * side).astype(np.int64)[:, None]  # as torchvision's CutMix
    centre = np.floor(u[:, 2:] * side).astype(np.int64)
    cut = np.concatenate([np.maximum(centre - half, 0), np.minimum(centre + half, side)], axis=1)
    left_over = 1 - (cut[:, 2] - cut[:, 0]) * (cut[:, 3] - cut[:, 1]) / side**2

    box = np.where(is_mixup[:, None], [0, 0, side, side], cut)
    return box, np.where(is_mixup, weight, 0.0), np.where(is_mixup, weight, left_over)
