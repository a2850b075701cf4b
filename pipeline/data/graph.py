"""DALI's graph of one batch: read, decode, cut, scale, mirror, normalise; on a CPU or a GPU.

It draws nothing at random: windows, sizes and flips are inputs, computed by ``geometry``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from nvidia.dali import fn, types

from pipeline.config import Loading, Pictures
from pipeline.data.geometry import Geometry

_INTERPOLATION = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}


@dataclass(frozen=True)
class Cut:
    """Which of the geometry's steps a kind of batch needs; only their numbers are fed."""

    side: int
    """Of the square output, pixels."""
    window: Literal["inside", "beyond", "whole"]
    """The window lies inside the picture, may reach beyond it (black), or is all of it."""
    resize: bool
    """The window is scaled."""
    inner: bool
    """The final square is cut out of the scaled window."""
    mirror: bool

    @classmethod
    def for_training(cls, pictures: Pictures) -> "Cut":
        if pictures.crop == "pad":
            return cls(pictures.size, "beyond", resize=False, inner=False, mirror=True)
        return cls(pictures.size, "inside", resize=True, inner=False, mirror=True)

    @classmethod
    def for_evaluation(cls, pictures: Pictures) -> "Cut":
        if pictures.eval_resize is None:
            return cls(pictures.evaluation_size, "beyond", resize=False, inner=False, mirror=False)
        return cls(pictures.evaluation_size, "whole", resize=True, inner=True, mirror=False)

    def inputs(self, geometry: Geometry) -> dict[str, np.ndarray]:
        """The arrays that ``graph`` consumes, by name."""
        found = {}
        if self.window != "whole":
            found |= {"start": geometry.window[:, :2], "shape": geometry.window[:, 2:]}
        if self.resize:
            found["size"] = geometry.size.astype(np.float32)
        if self.inner:
            found["corner"] = geometry.inner
        if self.mirror:
            found["flip"] = geometry.flip
        return {name: np.ascontiguousarray(values) for name, values in found.items()}


def graph(
    feed: Callable[[], tuple],
    names: list[str],
    cut: Cut,
    pictures: Pictures,
    loading: Loading,
    *,
    raw: bool,
    gpu: bool,
    layout: str,
):
    """One batch as a DALI node, float32.

    :param feed: gives the pictures (paths as bytes, or raw pixels) and then the arrays called ``names``.
    :param raw: the pictures come as pixels, (b, H, W, 3) uint8.
    :param layout: of the output, "HWC" or "CHW".
    """
    picture, *given = fn.external_source(feed, num_outputs=1 + len(names), batch=True)
    given = dict(zip(names, given, strict=True))
    if raw:
        decoded = fn.reshape(picture.gpu() if gpu else picture, layout="HWC")
    else:
        decoded = _decode(fn.io.file.read(picture), cut, given, loading, gpu)
    if cut.window == "beyond" or (cut.window == "inside" and raw):
        window = {"start": given["start"], "shape": given["shape"], "axes": [0, 1]}
        decoded = fn.slice(decoded, **window, out_of_bounds_policy="pad", fill_values=0)
    if cut.resize:
        interpolation = _INTERPOLATION[pictures.interpolation]
        decoded = fn.resize(decoded, size=given["size"], interp_type=interpolation, antialias=True)
    if cut.inner:
        decoded = fn.slice(decoded, start=given["corner"], shape=[cut.side, cut.side], axes=[0, 1])
    return fn.crop_mirror_normalize(
        decoded,
        mirror=given.get("flip", 0),
        mean=[255 * value for value in pictures.mean],
        std=[255 * value for value in pictures.std],
        dtype=types.FLOAT,
        output_layout=layout,
    )


def _decode(encoded, cut: Cut, given: dict, loading: Loading, gpu: bool):
    how = {
        "device": "mixed" if gpu else "cpu",
        "output_type": types.RGB,
        # EXIF rotation is not applied, as in the whole ImageNet lineage (Pillow, torchvision, Caffe).
        "adjust_orientation": False,
        "hw_decoder_load": loading.hardware_load,
    }
    if cut.window == "inside":
        return fn.decoders.image_slice(
            encoded, start=given["start"], shape=given["shape"], axes=[0, 1], **how
        )
    return fn.decoders.image(encoded, **how)
