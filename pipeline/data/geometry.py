"""Which window of a picture is cut, to what size it is scaled, and whether it is mirrored.

Everything is computed on the host from heights and widths, before a picture is read, so that DALI decodes
only the window. The distributions are torchvision's (``transforms.RandomResizedCrop``, ``RandomCrop`` with
padding, ``Resize`` and ``CenterCrop``); the numbers come from ``draws``.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.config import Pictures
from pipeline.data import draws

ATTEMPTS = 10  # as torchvision's RandomResizedCrop.get_params
LONGEST = 16  # of ImageNet's pictures none is longer in proportion


@dataclass(frozen=True)
class Geometry:
    """Per picture: cut ``window``, which may reach beyond it, scale to ``size``, cut the centre out."""

    window: np.ndarray  # (N, 4) int32: top, left, height, width in the picture's own pixels
    size: np.ndarray  # (N, 2) int32: height, width to which the window is scaled
    flip: np.ndarray  # (N,) int32: 1 = mirrored left to right
    corner: np.ndarray  # (N, 2) int32: top, left of the final square within the scaled window
    whole: np.ndarray  # (N, 2) int32: height, width of the picture, without what is no part of it


def for_training(
    pictures: Pictures,
    seed: int,
    rows: np.ndarray,
    epochs: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    side: int | None = None,
) -> Geometry:
    """Random windows and flips, each a function of (seed, epoch, picture) and the picture's shape.

    :param rows: (N,) picture numbers; ``epochs``, ``heights``, ``widths`` likewise (N,).
    :param side: of the square output, pixels; none = ``pictures.size``.
    """
    side = side or pictures.size
    if pictures.crop == "pad":
        u = draws.uniform(2, rows, epochs, seed, draws.CROP)
        window = _padded(u, heights, widths, side, pictures.pad)
    else:
        u = draws.uniform(2 * ATTEMPTS + 2, rows, epochs, seed, draws.CROP)
        window = _random_resized(u, heights, widths, pictures.scale, pictures.ratio)
    drawn_in = np.zeros_like(epochs) if pictures.flip_alternately else epochs
    flip = draws.uniform(1, rows, drawn_in, seed, draws.FLIP)[:, 0] < pictures.flip
    flip ^= (np.asarray(epochs) - drawn_in) % 2 == 1
    n = len(rows)
    return _geometry(window, np.full((n, 2), side), flip, np.zeros((n, 2)), np.stack([heights, widths], 1))


def for_evaluation(pictures: Pictures, heights: np.ndarray, widths: np.ndarray) -> Geometry:
    """The whole picture, short side scaled to ``eval_resize``, centre square of ``eval_size``.

    Of a picture more than LONGEST times as long as it is wide only the middle is looked at: scaled as a
    whole it could fill the memory, and the centre square lies in the middle anyway.
    """
    n, side = len(heights), pictures.evaluation_size
    shape = np.stack([heights, widths], axis=1).astype(np.int64)  # (N, 2)
    if pictures.eval_resize is None:
        # Not scaled: the centre square in its own pixels, ``pad_colour`` beyond a smaller picture.
        window = np.concatenate([_centre(shape, side), np.full((n, 2), side)], axis=1)
        return _geometry(window, np.full((n, 2), side), np.zeros(n), np.zeros((n, 2)), shape)
    short = shape.min(axis=1, keepdims=True)
    middle = np.minimum(shape, LONGEST * short)
    window = np.concatenate([(shape - middle) // 2, middle], axis=1)
    # torchvision truncates the long side: int(size * long / short).
    scaled = pictures.eval_resize * middle // short
    return _geometry(window, scaled, np.zeros(n), _centre(scaled, side), shape)


def _geometry(*arrays: np.ndarray) -> Geometry:
    return Geometry(*(values.astype(np.int32) for values in arrays))


def _centre(length: np.ndarray, side: int) -> np.ndarray:
    """Start of a centred piece, rounded half to even as torchvision's CenterCrop; negative = padding."""
    return np.rint((length - side) / 2)


def _whole(u: np.ndarray, choices: np.ndarray) -> np.ndarray:
    """Uniform integers in [0, choices) from uniform numbers in [0, 1)."""
    return np.floor(u * choices).astype(np.int64)


def _padded(u: np.ndarray, heights: np.ndarray, widths: np.ndarray, size: int, pad: int) -> np.ndarray:
    """A random square of the picture with ``pad`` pixels around it (He et al. 2015, section 4.2)."""
    spare_high = np.maximum(np.asarray(heights) + 2 * pad - size, 0)
    spare_wide = np.maximum(np.asarray(widths) + 2 * pad - size, 0)
    top, left = _whole(u[:, 0], spare_high + 1) - pad, _whole(u[:, 1], spare_wide + 1) - pad
    side = np.full(len(u), size)
    return np.stack([top, left, side, side], axis=1).astype(np.int32)


def _random_resized(
    u: np.ndarray, heights: np.ndarray, widths: np.ndarray, scale: list[float], ratio: list[float]
) -> np.ndarray:
    """Inception's crop (Szegedy et al. 2014, 6) as torchvision draws it.

    Ten attempts at a random area share and log-uniform aspect; the first that fits is placed uniformly.
    If none fits: the largest centred window with an allowed aspect.
    """
    heights, widths = np.asarray(heights, np.float64), np.asarray(widths, np.float64)
    area_share = scale[0] + u[:, 0 : 2 * ATTEMPTS : 2] * (scale[1] - scale[0])  # (N, ATTEMPTS)
    low, high = np.log(ratio[0]), np.log(ratio[1])
    aspect = np.exp(low + u[:, 1 : 2 * ATTEMPTS : 2] * (high - low))
    area = (heights * widths)[:, None] * area_share
    wide, tall = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (wide > 0) & (wide <= widths[:, None]) & (tall > 0) & (tall <= heights[:, None])
    first, any_fits = fits.argmax(axis=1), fits.any(axis=1)
    each = np.arange(len(u))
    wide, tall = wide[each, first], tall[each, first]
    top, left = _whole(u[:, -2], heights - tall + 1), _whole(u[:, -1], widths - wide + 1)

    own = widths / heights
    fallback_wide = np.where(own > ratio[1], np.rint(heights * ratio[1]), widths)
    fallback_tall = np.where(own < ratio[0], np.rint(widths / ratio[0]), heights)
    wide, tall = np.where(any_fits, wide, fallback_wide), np.where(any_fits, tall, fallback_tall)
    top = np.where(any_fits, top, (heights - tall) // 2)
    left = np.where(any_fits, left, (widths - wide) // 2)
    return np.stack([top, left, np.maximum(tall, 1), np.maximum(wide, 1)], axis=1).astype(np.int32)
