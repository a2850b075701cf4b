"""IDX, the files of MNIST (LeCun, Cortes & Burges 1998): a header, then one array of bytes.

The header is 0, 0, 8 for unsigned bytes, the number of dimensions, and each dimension as four bytes, the
highest first; the array follows in C order (yann.lecun.com/exdb/mnist, "the IDX file format").
"""

import gzip
import hashlib
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.config import UserError

from .source import plain

GZIP = b"\x1f\x8b"


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The array of unsigned bytes in a file, plain or gzipped, whatever the file's name says.

    No more is read, nor unpacked, than an array of that shape needs, and a byte.

    :param shape: of the array that must be there.
    :raises UserError: no such array, cut off, damaged, or more behind it; the message names the file.
    """
    try:
        with open(path, "rb") as file:
            packed = file.peek(len(GZIP))[: len(GZIP)] == GZIP
            return _array(gzip.GzipFile(fileobj=file) if packed else file, path, shape)
    except OSError as error:
        if error.errno is not None:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        raise UserError(f"{path}: cut off or damaged ({plain(error)}); fetch it again") from None
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path}: cut off or damaged ({plain(error)}); fetch it again") from None


def digest(array: np.ndarray) -> str:
    """sha256 of the plain IDX file that holds this array, as ``sha256sum`` gives it."""
    found = hashlib.sha256(_header(array.shape))
    found.update(np.ascontiguousarray(array, np.uint8).data)
    return found.hexdigest()


def _header(shape: tuple[int, ...]) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)


def _array(file: BinaryIO, path: Path, shape: tuple[int, ...]) -> np.ndarray:
    expected, count = _header(shape), int(np.prod(shape))
    header = file.read(len(expected))
    if len(header) == len(expected) and header != expected:
        raise UserError(f"{path}: {_strange(header, shape)}")
    content = file.read(count)
    if len(content) < count:
        found = f"ends after {len(header) + len(content):,} of {len(expected) + count:,} bytes"
        raise UserError(f"{path}: cut off: {found}; fetch it again")
    if file.read(1):  # to the end of the file, where gzip compares its checksum
        raise UserError(f"{path}: damaged: more than the {count:,} bytes of its array; fetch it again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _strange(header: bytes, shape: tuple[int, ...]) -> str:
    """What a header says that is not that of ``shape``."""
    start = _header(shape)[:4]
    if header[:4] != start:
        kind = f"unsigned bytes in {len(shape)} dimensions"
        return (
            f"starts with {header[:4].hex(' ')}, an IDX file of {kind} with {start.hex(' ')}; fetch it again"
        )
    found = struct.unpack(f">{len(shape)}I", header[4:])
    sizes = ["x".join(str(size) for size in sizes) for sizes in (found, shape)]
    return f"holds {sizes[0]} bytes, {sizes[1]} belong there; fetch it again"
