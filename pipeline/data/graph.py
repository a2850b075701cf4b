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
from pipeline.data.scale import Scaler

_INTERPOLATION = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}


@dataclass(frozen=True)
class Cut:
    """Which of the geometry's steps a kind of batch needs; only their numbers are fed."""

    beyond: bool
    """The window may reach beyond the picture (black)."""
    resize: bool
    """The window is scaled."""
    centre: int | None
    """Side of the square cut out of the scaled window, pixels; none = all of it."""
    mirror: bool

    @classmethod
    def for_training(cls, pictures: Pictures) -> "Cut":
        pad = pictures.crop == "pad"
        return cls(beyond=pad, resize=not pad, centre=None, mirror=pictures.flip > 0)

    @classmethod
    def for_evaluation(cls, pictures: Pictures) -> "Cut":
        resize = pictures.eval_resize is not None
        side = pictures.evaluation_size if resize else None
        return cls(beyond=not resize, resize=resize, centre=side, mirror=False)

    def inputs(self, geometry: Geometry) -> dict[str, np.ndarray]:
        """The arrays that ``graph`` consumes, by name."""
        found = {"start": geometry.window[:, :2], "shape": geometry.window[:, 2:]}
        if self.resize:
            found["size"] = geometry.size.astype(np.float32)
        if self.centre is not None:
            found["corner"] = geometry.corner
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


@dataclass(frozen=True)
class Graph:
    """One batch as a DALI node, from pictures and the arrays that say what is done to them.

    :ivar scaler: scales on a CPU, in this graph alone; on a GPU DALI does.
    """

    cut: Cut
    pictures: Pictures
    augment: Augment
    loading: Loading
    form: Form
    scaler: Scaler

    def __call__(self, picture, given: dict):
        """:param given: the arrays of ``Cut.inputs``, ``policy.inputs`` and ``erase.inputs``, as nodes."""
        if self.form.decoded:
            picture = fn.reshape(picture.gpu() if self.form.gpu else picture, layout="HWC")
        else:
            picture = self._decode(picture, given)
        if self.cut.beyond or self.form.decoded:
            where = {"start": given["start"], "shape": given["shape"], "axes": [0, 1]}
            how = {"out_of_bounds_policy": "pad", "fill_values": 0} if self.cut.beyond else {}
            picture = fn.slice(picture, **where, **how)
        if self.cut.resize:
            picture = self._scale(picture, given)
        picture = policy.apply(picture, given, self.augment)
        picture = fn.crop_mirror_normalize(
            picture,
            mirror=given.get("flip", 0),
            mean=[255 * value for value in self.pictures.mean],
            std=[255 * value for value in self.pictures.std],
            dtype=types.FLOAT16 if self.form.half else types.FLOAT,
            output_layout=self.form.layout,
        )
        return erase.apply(picture, given)

    def _decode(self, encoded, given: dict):
        how = {
            "device": "mixed" if self.form.gpu else "cpu",
            "output_type": types.RGB,
            # EXIF rotation is not applied, as in the whole ImageNet lineage (Pillow, torchvision, Caffe).
            "adjust_orientation": False,
            "hw_decoder_load": self.loading.hardware_load,
        }
        if self.cut.beyond:
            return fn.decoders.image(encoded, **how)
        where = {"start": given["start"], "shape": given["shape"], "axes": [0, 1]}
        return fn.decoders.image_slice(encoded, **where, **how)

    def _scale(self, window, given: dict):
        centre = self.cut.centre
        if not self.form.gpu:
            numbers = [given[name] for name in ("size", "corner") if name in given]
            scaled = fn.python_function(window, *numbers, function=self.scaler, batch_processing=True)
            return fn.reshape(scaled, layout="HWC")
        interpolation = _INTERPOLATION[self.pictures.interpolation]
        scaled = fn.resize(window, size=given["size"], interp_type=interpolation, antialias=True)
        if centre is None:
            return scaled
        return fn.slice(scaled, start=given["corner"], shape=[centre, centre], axes=[0, 1])
