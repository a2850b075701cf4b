"""A variable of a MATLAB file (level 5), such as annotations are published in."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np

from pipeline.config import UserError

from .archive import LARGEST
from .source import plain

HEADER = 128  # bytes of text, version and byte order before the first variable
MATRIX, COMPRESSED = 14, 15  # kinds of a variable
FLAGS = struct.pack("<II", 6, 8)  # how an uncompressed variable goes on
DAMAGE = (zlib.error, struct.error, EOFError, LookupError, ValueError, TypeError, ArithmeticError, OSError)
DAMAGE += (AttributeError, MemoryError, NameError, RuntimeError)


def variable(path: Path, name: str) -> np.ndarray:
    """(N,) rows of an array: structs have their fields by name, cells are objects.

    :raises UserError: no such file, none of MATLAB's, damaged, without that variable, or N is 0.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("too large")
        content = path.read_bytes()
        _sound(content)
        rows = np.atleast_1d(loadmat(io.BytesIO(content), squeeze_me=True, variable_names=[name])[name])
    except FileNotFoundError:
        raise UserError(f"{path}: missing; unpack or fetch its archive again") from None
    except (MatReadError, *DAMAGE) as error:
        raise UserError(f"{path}: cut off or damaged ({plain(error)}); fetch it again") from None
    if not len(rows):
        raise UserError(f"{path}: {name} is empty; fetch it again")
    return rows


def _sound(content: bytes) -> None:
    """Damage is found by the checksums of compressed variables, as MATLAB has written them since version 7.

    scipy's reader does not find it: of 4,000 uncompressed files with a few bytes changed 165 made it crash
    the process, and some kept it busy for a minute.

    :raises ValueError: no MATLAB file, or cut off. :raises zlib.error: a checksum does not hold.
    """
    if not content.startswith(b"MATLAB 5.0") or content[124:HEADER] != b"\x00\x01IM":
        raise ValueError("no MATLAB 5.0 file")
    position = HEADER
    while position < len(content):
        kind, size = struct.unpack_from("<II", content, position)
        position += 8
        data = content[position : position + size]
        if len(data) < size or not size:
            raise EOFError("ends early")
        if kind == COMPRESSED:
            zlib.decompress(data)
        elif kind != MATRIX or not data.startswith(FLAGS):
            raise ValueError(f"no variable at byte {position - 8}")
        position += size
