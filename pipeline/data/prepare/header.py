"""What a picture's header says, and why some files are no pictures."""

import errno
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from pipeline.config import one_line
from pipeline.data.sources import Files

READABLE = {
    "JPEG": "jpg",
    "MPO": "jpg",  # a JPEG with further ones behind it, from some cameras
    "PNG": "png",
    "WEBP": "webp",
    "BMP": "bmp",
    "TIFF": "tif",
    "PPM": "ppm",
}
"""Formats (Pillow's names) that DALI's decoders read, and their usual extension. Not JPEG 2000: a damaged one
makes DALI 2.4 crash the whole process."""
LARGEST = 2**29
"""Pixels; decoded that is 1.6 GB. A header can claim more than a machine has."""


# All of Pillow's formats at once: left to the first picture of each, threads that come meanwhile miss it.
Image.init()


class PictureError(Exception):
    """Why a file cannot be used."""


@dataclass(frozen=True)
class Header:
    height: int
    width: int
    extension: str


def header(file: BinaryIO) -> Header:
    """Reads the header only.

    :raises PictureError: no picture, or none that can be decoded in training.
    :raises OSError: the file cannot be read.
    """
    # Pillow's limit is on decoding, which does not happen here; ours is below.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(file) as picture:
            kind, (width, height) = picture.format, picture.size
            if (
                kind == "TIFF"
            ):  # of one that is to be turned Pillow tells the turned sides; nothing here turns
                width, height = picture.tag_v2[256], picture.tag_v2[257]
            moving = getattr(picture, "is_animated", False) and kind != "MPO"
    except UnidentifiedImageError:
        raise PictureError(_stranger(file)) from None
    except Exception as error:  # Pillow raises many kinds on damaged headers
        # Its own OSErrors have no number; EINVAL is a place in the file that cannot be, told by the header.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise PictureError(f"damaged: {one_line(error)}") from None
    if kind not in READABLE:
        raise PictureError(f"a {kind} file, which cannot be decoded in training")
    if moving:
        raise PictureError(f"a moving {kind} file, which cannot be decoded in training")
    if height * width > LARGEST:
        raise PictureError(f"{width}x{height} pixels are too many")
    return Header(height, width, READABLE[kind])


def _stranger(file: BinaryIO) -> str:
    file.seek(0)
    start = file.read(256).lstrip().lower()
    if not start:
        return "empty"
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page, not a picture"
    if start.startswith(b"\xff\xd8"):
        return "a truncated JPEG"
    return "not a picture"


class Place:
    """Where a source's pictures lie: files of their own, or pieces of archives."""

    def __init__(self, files: Files):
        self._root, self._paths, self._inside = Path(files.root).resolve(), files.paths, files.inside
        names = self._inside.archives if self._inside else []
        self.archives = [self._root / name for name in names]

    @property
    def root(self) -> Path:
        return self._root

    def path(self, row: int) -> Path:
        """The file that holds the picture."""
        if not self._inside:
            return self._root / self._paths[row]
        return self.archives[self._inside.number[row]]

    def stamp(self, row: int) -> list[int]:
        """The picture's offset and bytes, its file's bytes and time (ns): one put in its place has others."""
        about, inside = os.stat(self.path(row)), self._inside
        piece = [int(inside.offset[row]), int(inside.size[row])] if inside else [0, about.st_size]
        return [*piece, about.st_size, about.st_mtime_ns]

    def open(self, row: int) -> BinaryIO:
        if not self._inside:
            return open(self.path(row), "rb")
        piece = _Piece(self.path(row), int(self._inside.offset[row]), int(self._inside.size[row]))
        return io.BufferedReader(piece)


class _Piece(io.RawIOBase):
    """Some bytes of a file as a file."""

    def __init__(self, path: Path, offset: int, size: int):
        self._file, self._offset, self._size, self._at = os.open(path, os.O_RDONLY), offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + place)
        return self._at

    def readinto(self, buffer) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        found = os.pread(self._file, count, self._offset + self._at)
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def close(self) -> None:
        if not self.closed:
            os.close(self._file)
        super().close()
