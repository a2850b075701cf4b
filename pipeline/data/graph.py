"""DALI's graph of one batch: decode, cut, scale, change, mirror, normalise; on a CPU or a GPU.

It draws nothing at random: windows, sizes, flips and augmentations are inputs, computed on the host by
``geometry``, ``policy`` and ``erase``.
"""

from dataclasses import dataclass

import numpy as np
from nvidia.dali import fn, types

from pipeline.config import Augment, Loading, Pictures
from pipeline.data import erase, policy
from pipeline.data.geometry import Geometry

_INTERPOLATION = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}


@dataclass(frozen=True)
class Cut:
    """Which of the geometry's steps a kind of batch needs; only their numbers are fed."""

    beyond: bool
    """The window may reach beyond the picture (black)."""
    resize: bool
    """The window is scaled, or a region of it."""
    region: bool
    """Not all of the window is scaled."""
    mirror: bool

    @classmethod
    def for_training(cls, pictures: Pictures) -> "Cut":
        pad = pictures.crop == "pad"
        return cls(beyond=pad, resize=not pad, region=False, mirror=pictures.flip > 0)

    @classmethod
    def for_evaluation(cls, pictures: Pictures) -> "Cut":
        resize = pictures.eval_resize is not None
        return cls(beyond=not resize, resize=resize, region=resize, mirror=False)

    def inputs(self, geometry: Geometry) -> dict[str, np.ndarray]:
        """The arrays that ``graph`` consumes, by name."""
        found = {"start": geometry.window[:, :2], "shape": geometry.window[:, 2:]}
        if self.resize:
            found["size"] = geometry.size.astype(np.float32)
        if self.region:
            found |= {"from": geometry.region[:, :2], "to": geometry.region[:, 2:]}
        if self.mirror:
            found["flip"] = geometry.flip
        return {name: np.ascontiguousarray(values) for name, values in found.items()}


@dataclass(frozen=True)
class Form:
    """What goes into the graph and what comes out."""

    decoded: bool
    """Pixels come in, (H, W, 3) uint8; else encoded pictures."""
    gpu: bool
    half: bool
    """float16 comes out; else float32."""
    layout: str
    """Of the output: "HWC" or "CHW"."""


def graph(picture, given: dict, cut: Cut, pictures: Pictures, augment: Augment, loading: Loading, form: Form):
    """One batch as a DALI node.

    :param given: the arrays of ``Cut.inputs``, ``policy.inputs`` and ``erase.inputs``, as nodes.
    """
    if form.decoded:
        decoded = fn.reshape(picture.gpu() if form.gpu else picture, layout="HWC")
    else:
        decoded = _decode(picture, cut, given, loading, form.gpu)
    if cut.beyond or form.decoded:
        where = {"start": given["start"], "shape": given["shape"], "axes": [0, 1]}
        how = {"out_of_bounds_policy": "pad", "fill_values": 0} if cut.beyond else {}
        decoded = fn.slice(decoded, **where, **how)
    if cut.resize:
        region = {"roi_start": given["from"], "roi_end": given["to"]} if cut.region else {}
        interpolation = _INTERPOLATION[pictures.interpolation]
        decoded = fn.resize(decoded, size=given["size"], interp_type=interpolation, antialias=True, **region)
    if augment.policy != "none":
        decoded = policy.apply(decoded, given, augment)
    normalised = fn.crop_mirror_normalize(
        decoded,
        mirror=given.get("flip", 0),
        mean=[255 * value for value in pictures.mean],
        std=[255 * value for value in pictures.std],
        dtype=types.FLOAT16 if form.half else types.FLOAT,
        output_layout=form.layout,
    )
    return erase.apply(normalised, given) if augment.erase else normalised


def _decode(encoded, cut: Cut, given: dict, loading: Loading, gpu: bool):
    how = {
        "device": "mixed" if gpu else "cpu",
        "output_type": types.RGB,
        # EXIF rotation is not applied, as in the whole ImageNet lineage (Pillow, torchvision, Caffe).
        "adjust_orientation": False,
        "hw_decoder_load": loading.hardware_load,
    }
    if cut.beyond:
        return fn.decoders.image(encoded, **how)
    where = {"start": given["start"], "shape": given["shape"], "axes": [0, 1]}
    return fn.decoders.image_slice(encoded, **where, **how)
