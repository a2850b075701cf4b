"""Random erasing: a rectangle of a training picture is blanked (Zhong et al. 2020, algorithm 1).

Shares and aspects as torchvision's ``RandomErasing`` draws them; the numbers come from ``draws``.
"""

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode

from pipeline.config import Augment
from pipeline.data import draws

AREA = (0.02, 0.33)  # share of the picture
ASPECT = (0.3, 3.3)  # height over width, drawn log-uniformly
ATTEMPTS = 10  # as torchvision's RandomErasing.make_params


def inputs(
    augment: Augment, side: int, seed: int, rows: np.ndarray, epochs: np.ndarray
) -> dict[str, np.ndarray]:
    """Which rectangle of each picture is blanked, by the names that ``apply`` wants; nothing where it is off.

    :param side: of the square pictures, pixels.
    :param rows: (N,) picture numbers; ``epochs`` likewise (N,).
    :return: two (N, 2) float32 arrays of whole pixels: top, left; height, width; all 0 where none is.
    """
    if augment.erase == 0:
        return {}
    u = draws.uniform(2 * ATTEMPTS + 3, rows, epochs, seed, draws.ERASE)
    area = side * side * (AREA[0] + u[:, 3::2] * (AREA[1] - AREA[0]))  # (N, ATTEMPTS)
    low, high = np.log(ASPECT)
    aspect = np.exp(low + u[:, 4::2] * (high - low))
    tall, wide = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (tall < side) & (wide < side)
    each, first = np.arange(len(u)), fits.argmax(axis=1)
    erased = (u[:, 0] < augment.erase) & fits.any(axis=1)
    shape = np.where(erased[:, None], np.stack([tall[each, first], wide[each, first]], axis=1), 0)
    start = np.where(erased[:, None], np.floor(u[:, 1:3] * (side - shape + 1)), 0)
    return {"erase_start": start.astype(np.float32), "erase_shape": shape.astype(np.float32)}


def apply(images: DataNode, given: dict[str, DataNode]) -> DataNode:
    """The normalised pictures, HWC or CHW floats, with their rectangles at 0: the mean colour.

    :param given: holds what ``inputs`` named, as nodes on the CPU; without those the pictures are left alone.
    """
    if "erase_start" not in given:
        return images
    return fn.erase(
        images, anchor=given["erase_start"], shape=given["erase_shape"], axis_names="HW", fill_value=0
    )
