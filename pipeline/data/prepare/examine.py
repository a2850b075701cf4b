"""One picture on its way into an index: its header, its bytes, its pixels, and what of it is stored."""

import hashlib
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from pipeline.config import UserError, one_line
from pipeline.data.prepare.decode import Decoder
from pipeline.data.prepare.header import Header, PictureError, Place, header
from pipeline.data.prepare.how import QUALITY, How
from pipeline.data.reader import FINAL, PAUSES, patiently

GONE = "cannot be read"
"""How the reason begins where a file is not what is wrong."""
DECODED_AT_ONCE = 2**26  # pixels: 200 MB in a thread's hands

Answer = TypeVar("Answer")


@dataclass
class Found:
    """What became of one picture.

    :ivar height: of the picture as stored, without banner; ``width`` likewise, pixels.
    :ivar size: bytes stored. :ivar digest: BLAKE2b of them, if they were all read.
    :ivar content: to be written into a shard, if pictures are packed.
    :ivar reason: why it is left out; none if it is kept.
    :ivar stamp: of the source's file before it was read (``Place.stamp``).
    """

    row: int
    height: int = 0
    width: int = 0
    size: int = 0
    digest: bytes | None = None
    content: bytes | None = None
    extension: str = ""
    reason: str | None = None
    stamp: list[int] | None = None


class Examiner:
    """Examines pictures of one split, on any number of threads.

    :param banner: rows of pixels at the bottom that are cut off.
    """

    def __init__(self, place: Place, banner: int, how: How):
        self._place, self._banner, self._how = place, banner, how
        self._decoders = threading.local()

    def several(self, rows: Sequence[int]) -> list[Found]:
        """In the order of ``rows``."""
        found = [self._open(int(row)) for row in rows]
        if self._how.decodes:
            self._decode([each for each in found if each.reason is None])
        for each in found:
            if each.reason is None and each.content is not None:
                each.digest = hashlib.blake2b(each.content, digest_size=16).digest()
                each.size = len(each.content)
            if each.reason is not None or not self._how.pack:
                each.content = None
        return found

    def holds(self, row: int, stamp: list[int] | None, reason: str | None) -> bool:
        """What was found earlier is still so. A picture that was left out is examined again.

        For what was wrong need not lie in its file: a mount that was not there, permissions.
        """
        if reason is not None:
            (found,) = self.several([row])
            return found.reason == reason
        try:
            return self._ask(row, self._place.stamp) == stamp
        except OSError:
            return False

    def _open(self, row: int) -> Found:
        """The header, and all bytes if they are wanted."""
        try:
            return self._ask(row, self._read)
        except PictureError as error:
            return Found(row, reason=str(error))
        except OSError as error:
            return Found(row, reason=f"{GONE}: {error.strerror}")

    def _ask(self, row: int, question: Callable[[int], Answer]) -> Answer:
        """What the file system answers.

        :raises OSError: one that is final for the file.
        :raises UserError: any other, which says nothing about the picture.
        """
        try:
            return patiently(lambda: question(row))
        except OSError as error:
            if error.errno in FINAL:
                raise
            raise UserError(
                f"{self._place.path(row)}: {error.strerror or one_line(error)}, {len(PAUSES) + 1} times in a "
                "row; the same command goes on once it can be read"
            ) from None

    def _read(self, row: int) -> Found:
        stamp = self._place.stamp(row)
        found = Found(row, size=stamp[1], stamp=stamp)
        if not found.size:
            raise PictureError("empty")
        with self._place.open(row) as file:
            if self._how.reads:
                found.content = file.read()
                file = io.BytesIO(found.content)
            told: Header = header(file)
        found.height, found.width, found.extension = told.height - self._banner, told.width, told.extension
        if found.height < 1:
            raise PictureError(f"{told.height} pixels high, no higher than the banner of {self._banner}")
        return found

    def _decode(self, found: list[Found]) -> None:
        batch: list[Found] = []
        for each in found:
            pixels = sum(other.height * other.width for other in batch)
            if batch and pixels + each.height * each.width > DECODED_AT_ONCE:
                self._decode_batch(batch)
                batch = []
            batch.append(each)
        if batch:
            self._decode_batch(batch)

    def _decode_batch(self, batch: list[Found]) -> None:
        if not hasattr(self._decoders, "own"):
            self._decoders.own = Decoder()
        pixels = self._decoders.own.decode([each.content for each in batch])
        for each, picture in zip(batch, pixels, strict=True):
            if picture is None:
                each.reason = _undecodable(each)
            elif picture.shape[:2] != (each.height + self._banner, each.width):
                height, width = picture.shape[:2]
                each.reason = f"decoded {width}x{height}, but its header says {each.width}x{each.height}"
            elif self._how.pack:
                self._store(each, picture[: each.height])

    def _store(self, found: Found, picture: np.ndarray) -> None:
        """What goes into the shard: pixels, a new JPEG, or the file as it is.

        :param picture: (H, W, 3) uint8 without banner.
        """
        how, longest = self._how, max(picture.shape[:2])
        smaller = how.max_side is not None and longest > how.max_side
        if smaller:
            share = how.max_side / longest
            size = [max(1, round(length * share)) for length in (found.width, found.height)]
            picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
        if how.decoded:
            found.content, found.extension = picture.tobytes(), "pixels"
        elif smaller or how.quality is not None:
            written = io.BytesIO()
            Image.fromarray(picture).save(written, "JPEG", quality=how.quality or QUALITY)
            found.content, found.extension = written.getvalue(), "jpg"
        found.height, found.width = picture.shape[:2]


def _undecodable(found: Found) -> str:
    """JPEGs end with a marker; one that lacks it is cut off, which is what mostly happens to files."""
    if found.extension == "jpg" and found.content.rstrip(b"\0")[-2:] != b"\xff\xd9":
        return "a truncated JPEG"
    return f"a damaged {found.extension} file: cannot be decoded"


def examiner_threads(how: How, cores: int) -> int:
    """Headers are small reads, slow only through a network file system's latency; decoding takes cores."""
    return 2 * cores if how.reads else max(16, 2 * cores)
