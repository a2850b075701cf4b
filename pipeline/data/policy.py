"""TrivialAugment and RandAugment with DALI's operators and our own draws.

DALI's ready-made ``trivial_augment_wide`` and ``rand_augment`` draw inside the graph, from a state that
depends on how many batches came before. Here operation, strength and sign are inputs, looked up in
``draws``: a picture is changed alike whatever batch, rank or restart it comes in. Operations and ranges
are those of DALI's suites:

- trivial: the 14 operations of TrivialAugment wide (Müller and Hutter 2021, table 6), one a picture,
  strength uniform over 31 bins; moves of up to 32 pixels, whatever the pictures' size.
- rand: the same operations with the ranges of RandAugment (Cubuk et al. 2020), the strength given;
  moves of up to 100/224 of the side.

What moved, sheared and rotated pictures leave empty is grey 128, as in AutoAugment's code, and pixels
are interpolated linearly; torchvision's defaults are black and the nearest pixel.
"""

import warnings

import numpy as np
from nvidia.dali.auto_aug.core import select, signed_bin
from nvidia.dali.auto_aug.rand_augment import get_rand_augment_suite
from nvidia.dali.auto_aug.trivial_augment import get_trivial_augment_wide_suite
from nvidia.dali.data_node import DataNode

from pipeline.config import Augment
from pipeline.data import draws

BINS = 31  # from no change to the strongest, in equal steps
SUITES = {
    "trivial": get_trivial_augment_wide_suite(),
    "rand": get_rand_augment_suite(use_shape=True),
}
FILL = 128


def inputs(augment: Augment, seed: int, rows: np.ndarray, epochs: np.ndarray) -> dict[str, np.ndarray]:
    """What is done to each picture, by the names that ``apply`` wants; nothing without a policy.

    :param rows: (N,) picture numbers; ``epochs`` likewise (N,).
    :return: three (N, operations) int32 arrays: the operation's number in its suite, the bin of its strength,
        and 1 where the strength counts as negative (to the left, darker, ...).
    """
    if augment.policy == "none":
        return {}
    ops = augment.ops if augment.policy == "rand" else 1
    u = draws.uniform(3 * ops, rows, epochs, seed, draws.POLICY).reshape(len(rows), ops, 3)
    choices = [len(SUITES[augment.policy]), BINS, 2]
    op, strength, sign = np.floor(u * choices).astype(np.int32).transpose(2, 0, 1)
    if augment.policy == "rand":
        strength = np.full_like(op, augment.magnitude)
    named = {"policy_op": op, "policy_bin": strength, "policy_sign": sign}
    return {name: np.ascontiguousarray(values) for name, values in named.items()}


def apply(images: DataNode, given: dict[str, DataNode], augment: Augment) -> DataNode:
    """The pictures, changed; to be called within ``pipeline_def(enable_conditionals=True)``.

    :param images: HWC uint8, all of one size.
    :param given: holds what ``inputs`` named, as nodes on the CPU.
    """
    if augment.policy == "none":
        return images
    shape = images.shape(device="cpu")
    # DALI's own suites call two operators by names that DALI warns of, whatever the warning filters say.
    with warnings.catch_warnings(record=True):
        for number in range(augment.ops if augment.policy == "rand" else 1):
            strength = signed_bin(given["policy_bin"][number], given["policy_sign"][number])
            images = select(
                SUITES[augment.policy],
                given["policy_op"][number],
                images,
                magnitude_bin=strength,
                num_magnitude_bins=BINS,
                fill_value=FILL,
                shape=shape,
            )
    return images
