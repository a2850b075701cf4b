"""Where the files within uncompressed tar archives lie, so that they can be read in place, never unpacked.

Only the headers are read: one seek a member. An archive may hold archives (ILSVRC2012_img_train.tar holds a
tar per class); these are not unpacked either, offsets are in the outermost file.

Folders, devices and hidden files are passed over. A link or a sparse file is refused: its bytes lie
elsewhere. An archive must be whole: its last byte there, its end marked, and nothing but zeros behind that.
A download's hole looks like an end, and so do archives that were joined.
"""

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from pipeline.config import UserError
from pipeline.progress import Bar

from .archive import DAMAGE
from .source import plain

LARGEST = 2**20  # bytes of a header, and of the padding behind the end; GNU tar's own has 10 KiB
PACKERS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK": "zip"}


class Member(NamedTuple):
    """A file within an archive.

    :ivar name: '/' between folders, no '.' or '..' in it.
    :ivar offset: of its first byte in the outermost archive. :ivar size: bytes.
    """

    name: str
    offset: int
    size: int


def members_of(tar: Path) -> list[Member]:
    """The files in an archive, in its order.

    :raises UserError: unreadable, compressed, cut off or damaged, a member that cannot be read in place,
        or one name twice.
    """
    with _opened(tar) as (file, bar):
        return _members(_Span(file, str(tar), 0, bar.total), bar)


def nested_members_of(tar: Path) -> Iterator[tuple[str, list[Member]]]:
    """Name and files of each archive in an archive of archives, in its order; its other files are left out.

    :raises UserError: as ``members_of``, for either kind of archive.
    """
    with _opened(tar) as (file, bar):
        for outer in _members(_Span(file, str(tar), 0, bar.total), None):
            if outer.name.endswith(".tar"):
                span = _Span(file, f"{tar}: {outer.name}", outer.offset, outer.offset + outer.size)
                yield outer.name, _members(span, bar)


@contextmanager
def _opened(tar: Path) -> Iterator[tuple[BinaryIO, Bar]]:
    try:
        # A small buffer: what follows a header is the file itself, which nobody wants here.
        with open(tar, "rb", buffering=1024) as file:
            total = os.fstat(file.fileno()).st_size
            with Bar(f"reading the headers of {tar}", total, "bytes") as bar:
                yield file, bar
                bar.advance(total - bar.done)
    except OSError as error:
        raise UserError(f"{tar}: cannot be read: {error.strerror or plain(error)}") from None


@dataclass(frozen=True)
class _Span:
    """The bytes ``start`` to ``end`` of a file, which are an archive.

    :ivar name: for messages.
    """

    file: BinaryIO
    name: str
    start: int
    end: int


class _View:
    """A span as tarfile wants a file; its positions are those of the whole file."""

    def __init__(self, span: _Span):
        self._span, self._at = span, span.start

    def seek(self, place: int) -> None:
        self._at = place

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LARGEST:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self._span.file.seek(self._at)
        content = self._span.file.read(max(0, min(size, self._span.end - self._at)))
        self._at += len(content)
        return content


class _Header(tarfile.TarInfo):
    """Without it tarfile takes a damaged header, or none, for the end, and silently leaves out the rest."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # the empty blocks that end an archive
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(plain(error)) from None


def _members(span: _Span, bar: Bar | None) -> list[Member]:
    """:param bar: to be advanced by the bytes passed."""
    found: dict[str, Member] = {}
    try:
        view = _View(span)
        with tarfile.TarFile(fileobj=view, tarinfo=_Header) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # a million of them would need a gigabyte
                _check_place(member, tar.offset, span)
                if bar:
                    bar.advance(tar.offset - bar.done)
                if place := _placed(member, span):
                    if place.name in found:
                        raise UserError(f"{span.name}: holds {place.name!r} twice; fetch it again")
                    found[place.name] = place
            _check_end(view, tar.offset, span)
    except DAMAGE as error:
        raise UserError(f"{span.name}: {_why(span, error)}") from None
    return list(found.values())


def _check_place(member: tarfile.TarInfo, following: int, span: _Span) -> None:
    """:param following: where the next header is expected.

    :raises ReadError: a size that leads back or beyond the end. Sizes can be negative: tarfile would go in
        circles (CVE-2025-8194).
    """
    if not member.offset < following:
        raise tarfile.ReadError(f"{member.name!r} of {member.size:,} bytes")
    if following > span.end:
        raise tarfile.ReadError(f"ends within {member.name!r}")
    if member.isreg() and not member.issparse() and not 0 <= member.size <= following - member.offset_data:
        raise tarfile.ReadError(f"{member.name!r} of {member.size:,} bytes")


def _why(span: _Span, error: BaseException) -> str:
    """What is wrong with a span that is no archive."""
    start = _View(span).read(8)
    packer = next((name for magic, name in PACKERS.items() if start.startswith(magic)), None)
    if packer:
        return f"compressed by {packer}, and its files cannot be read in place; decompress it"
    return f"cut off or damaged ({plain(error)}); fetch it again"


def _check_end(view: _View, offset: int, span: _Span) -> None:
    """:raises UserError: more than padding lies behind the mark of the end."""
    view.seek(offset)
    left = span.end - offset
    if left > LARGEST or view.read(left).strip(b"\0"):
        raise UserError(
            f"{span.name}: its end is marked at byte {offset - span.start:,} of {span.end - span.start:,}: "
            "damaged, or several archives joined; fetch it again"
        )


def _placed(member: tarfile.TarInfo, span: _Span) -> Member | None:
    """Where the member lies; none if it is no file, or hidden.

    :raises UserError: it does not lie in one piece, or its name is none of a picture's.
    """
    path = PurePosixPath(member.name)
    if any(part.startswith(".") and part != ".." for part in path.parts):
        return None
    if member.issym() or member.islnk() or member.issparse():
        kind = "sparse" if member.issparse() else "a link"
        raise UserError(
            f"{span.name}: its member {member.name!r} is {kind} and cannot be read in place; unpack it"
        )
    if not member.isreg():
        return None
    if path.is_absolute() or ".." in path.parts or not member.name.isprintable():
        raise UserError(f"{span.name}: its member {member.name!r} is none of a publisher's; fetch it again")
    return Member(str(path), member.offset_data, member.size)
