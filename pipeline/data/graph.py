"""DALI's graph of one batch: decode, cut, scale, change, mirror, normalise; on a CPU or a GPU.

On a CPU scaling and the last steps are torch's (``scale``, ``finish``), as functions within the graph.
Nothing is drawn at random here: windows, sizes, flips and augmentations are inputs, computed on the host by
``geometry``, ``policy`` and ``erase``.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from nvidia.dali import fn, types

from pipeline.config import Augment, Loading, Pictures
from pipeline.data import erase, policy
from pipeline.data.finish import FinishBatch
from pipeline.data.geometry import Geometry
from pipeline.data.scale import ScaleBatch, Scaler

_INTERPOLATION = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}


@dataclass(frozen=True)
class Cut:
    """Which of the geometry's steps a kind of batch needs; only their numbers are fed."""

    beyond: bool
    """The window may reach beyond the picture (``pad_colour``)."""
    resize: bool
    """The window is scaled."""
    centre: int | None
    """Side of the square cut out of the scaled window, pixels; none = all of it."""
    mirror: bool
    banner: bool
    """What is decoded as a whole may have a banner at the bottom, which is no part of the picture."""

    @classmethod
    def for_training(cls, pictures: Pictures, decoded: bool) -> "Cut":
        """:param decoded: pixels come in."""
        pad, mirror = pictures.crop == "pad", pictures.flip > 0 or pictures.flip_alternately
        return cls(beyond=pad, resize=not pad, centre=None, mirror=mirror, banner=pad and not decoded)

    @classmethod
    def for_evaluation(cls, pictures: Pictures, decoded: bool) -> "Cut":
        """:param decoded: pixels come in."""
        own = pictures.eval_resize is None
        side = None if own else pictures.evaluation_size
        return cls(beyond=own, resize=not own, centre=side, mirror=False, banner=own and not decoded)

    def inputs(self, geometry: Geometry) -> dict[str, np.ndarray]:
        """The arrays that ``graph`` consumes, by name."""
        found = {"start": geometry.window[:, :2], "shape": geometry.window[:, 2:]}
        if self.resize:
            found["size"] = geometry.size.astype(np.float32)
        if self.centre is not None:
            found["corner"] = geometry.corner
        if self.mirror:
            found["flip"] = geometry.flip
        if self.banner:
            found["whole"] = geometry.whole
        return {name: np.ascontiguousarray(values) for name, values in found.items()}


@dataclass(frozen=True)
class Form:
    """What goes into the graph and, on a GPU, what comes out."""

    decoded: bool
    """Pixels come in, (H, W, 3) uint8; else encoded pictures."""
    gpu: bool
    half: bool
    """float16 comes out; else float32."""
    layout: str
    """Of the output: "HWC" or "CHW"."""


class Graph:
    """One batch as a DALI node, from pictures and the arrays that say what is done to them.

    On a GPU the node is the finished batch; on a CPU the batch comes out of ``finish.done``.

    :param names: of the arrays: those of ``Cut.inputs``, ``policy.inputs`` and ``erase.inputs``.
    :param pool: the threads that scale and finish on a CPU.
    """

    def __init__(
        self,
        names: list[str],
        cut: Cut,
        pictures: Pictures,
        augment: Augment,
        loading: Loading,
        form: Form,
        pool: ThreadPoolExecutor,
    ):
        self.cut, self.pictures, self.augment, self.loading, self.form = cut, pictures, augment, loading, form
        scaler = Scaler(pictures.interpolation, cut.centre) if cut.resize else None
        # A policy is DALI's and stands between scaling and the rest; without one all is done in one go.
        self.scale = ScaleBatch(scaler, pool) if scaler and augment.policy != "none" else None
        wanted = ("size", "corner", "flip", "erase_start", "erase_shape")
        self.last = [name for name in wanted if name in names]
        last_scaler = None if self.scale else scaler
        self.finish = FinishBatch(self.last, last_scaler, pictures.mean, pictures.std, pool)

    def __call__(self, picture, given: dict):
        """:param given: the arrays as nodes, by name."""
        if self.form.decoded:
            picture = fn.reshape(picture.gpu() if self.form.gpu else picture, layout="HWC")
        else:
            picture = self._decode(picture, given)
        if self.cut.beyond or self.form.decoded:
            where = {"start": given["start"], "shape": given["shape"], "axes": [0, 1]}
            how = {"out_of_bounds_policy": "pad", "fill_values": self._beyond()} if self.cut.beyond else {}
            picture = fn.slice(picture, **where, **how)
        if self.form.gpu:
            return self._gpu(picture, given)
        if self.scale:
            numbers = [given[name] for name in ("size", "corner") if name in given]
            picture = fn.python_function(picture, *numbers, function=self.scale, batch_processing=True)
            picture = fn.reshape(picture, layout="HWC")
        picture = policy.apply(picture, given, self.augment)
        numbers = [given[name] for name in self.last]
        return fn.python_function(picture, *numbers, function=self.finish, batch_processing=True)

    def _beyond(self) -> list[float]:
        """The colour beyond a picture's edge, (3,) whole numbers in 0..255, as pixels are here."""
        if self.pictures.pad_colour == "black":
            return [0.0] * 3
        return [float(round(255 * value)) for value in self.pictures.mean]

    def _gpu(self, picture, given: dict):
        """Scaled, changed, mirrored, normalised and blanked by DALI."""
        if self.cut.resize:
            how = {"interp_type": _INTERPOLATION[self.pictures.interpolation], "antialias": True}
            picture = fn.resize(picture, size=given["size"], **how)
        if self.cut.centre is not None:
            square = [self.cut.centre] * 2
            picture = fn.slice(picture, start=given["corner"], shape=square, axes=[0, 1])
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
        # A window that may reach beyond is cut afterwards, out of all but the banner at the bottom.
        start, shape = ([0, 0], given["whole"]) if self.cut.beyond else (given["start"], given["shape"])
        where = {"start": start, "shape": shape, "axes": [0, 1]}
        return fn.decoders.image_slice(encoded, **where, **how)
