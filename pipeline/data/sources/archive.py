"""Publishers' archives: a few named files of one in memory, or all of it unpacked into a folder.

Nothing is ever written outside that folder, whatever names, links and modes the members have.
"""

import lzma
import os
import shutil
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pipeline.config import UserError
from pipeline.progress import Bar

from .source import plain

LARGEST = 64 * 2**20  # bytes; no file that is asked for here has more
MARK = ".unpacked-from"  # in an unpacked folder: the name and size of its archive
STALE = 24 * 3600  # seconds after which a killed run's half-unpacked files are swept away
# What tarfile, gzip and zipfile are seen to raise where bytes are damaged; OSError apart.
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError)
DAMAGE += (ArithmeticError, LookupError, MemoryError, RuntimeError)


def members(place: Path, inside: str, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each of these files, in the order in which they are found.

    :param place: the folder that holds them, or a (compressed) tar archive.
    :param inside: the folder within the archive that holds them; a folder ``place`` is that folder.
    :raises UserError: one is missing, or the archive is cut off or damaged.
    """
    found = _folder(place, names) if place.is_dir() else _archive(place, inside, names)
    missing = list(names)
    for name, content in found:
        missing.remove(name)
        yield name, content
        if not missing:
            return
    raise UserError(f"{place}: {missing[0]} is missing; fetch it all again")


def _folder(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        path = folder / name
        if not path.is_file():
            continue
        try:
            if path.stat().st_size > LARGEST:
                raise UserError(f"{path}: {path.stat().st_size:,} bytes are too many; fetch it again")
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        yield name, content


def _archive(path: Path, inside: str, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    wanted = {f"{inside}/{name}": name for name in names}
    try:
        with tarfile.open(path, "r:*") as tar:
            for member in tar:
                name = wanted.pop(member.name, None)
                if name is None or not member.isreg():
                    continue
                if member.size > LARGEST:
                    raise UserError(f"{path}: {name} has {member.size:,} bytes, too many; fetch it again")
                yield name, tar.extractfile(member).read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(f"{path}: cut off or damaged ({plain(error)}); fetch it again") from None


def unpack(archive: Path, into: Path, inner: str | None = None) -> Path:
    """The folder of ``into`` that holds all of the archive's files; an earlier run's if that is whole.

    It is called as the archive is, and only when it is whole: a run killed meanwhile leaves none.

    :param inner: name of the (compressed) tar to unpack, if ``archive`` is a zip around it.
    :raises UserError: the archive is cut off, damaged or hostile, the folder is another archive's or
        cannot be written; then nothing of it is left.
    """
    try:
        mark = f"{archive.name} {archive.stat().st_size}\n"
        folder = into / _stem(archive.name)
        if os.path.lexists(folder):
            return _same(folder, archive, mark)
        with workplace(into) as part:
            whole = part / folder.name
            whole.mkdir()
            _unpack(archive, whole, inner)
            (whole / MARK).write_text(mark)
            try:
                os.rename(whole, folder)
            except OSError:
                if not folder.is_dir():
                    raise
                _same(folder, archive, mark)  # another process was faster
    except tarfile.FilterError as error:
        name, why = error.tarinfo.name, type(error).__name__
        raise UserError(
            f"{archive}: refused, its member {name!r} would reach outside ({why}); fetch it elsewhere"
        ) from None
    except DAMAGE as error:
        raise UserError(f"{archive}: cut off or damaged ({plain(error)}); fetch it again") from None
    except OSError as error:
        if error.errno is None:  # gzip's own
            raise UserError(f"{archive}: cut off or damaged ({plain(error)}); fetch it again") from None
        raise UserError(f"{archive}: cannot be unpacked into {into} ({error.strerror})") from None
    return folder


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """A hidden folder in ``folder`` for what is not whole yet; gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".part-*"):
        with suppress(OSError):  # another process may be removing it
            if time.time() - left.stat().st_mtime > STALE:
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder, ignore_cleanup_errors=True) as part:
        yield Path(part)


def _stem(name: str) -> str:
    for ending in (".tar.gz", ".tgz", ".tar", ".zip"):
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name + ".unpacked"


def _same(folder: Path, archive: Path, mark: str) -> Path:
    """:raises UserError: the folder was not unpacked from this archive."""
    try:
        found = (folder / MARK).read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder}: is there already, and was not unpacked from {archive} by this program; "
            "name it itself as the root, or move it away"
        ) from None
    if found != mark:
        raise UserError(f"{folder}: was unpacked from {found.strip()} bytes, not {mark.strip()}; remove it")
    return folder


def _unpack(archive: Path, folder: Path, inner: str | None) -> None:
    with ExitStack() as stack:
        file = stack.enter_context(open(archive, "rb"))
        bar = stack.enter_context(Bar(f"unpacking {archive}", archive.stat().st_size, "bytes"))
        packed = file
        if archive.suffix == ".zip":
            packed = stack.enter_context(_within_zip(stack.enter_context(zipfile.ZipFile(file)), inner))
        tar = stack.enter_context(_opened(packed))
        for member in tar:
            tar.extract(member, folder, filter=_safe)
            bar.advance(max(file.tell() - bar.done, 0))
        while tar.fileobj.read(2**20):  # to the checksum, which comes last
            pass
        bar.advance(max(file.tell() - bar.done, 0))


def _opened(file: BinaryIO) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=file, mode="r:*", tarinfo=_Header)
    except tarfile.ReadError:  # four lines, one for each compression that it is not
        raise tarfile.ReadError("no tar archive") from None


def _within_zip(packed: zipfile.ZipFile, inner: str | None) -> BinaryIO:
    names = [name for name in packed.namelist() if name.rpartition("/")[2] == inner]
    if not names:
        raise zipfile.BadZipFile(f"no {inner} in it")
    return packed.open(names[0])


def _safe(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """tarfile's data filter, which refuses what leads out; links within are then left out.

    A later member could be written through a link, and before Python 3.11.13 the filter could be led to
    let one out (CVE-2025-4517, CVE-2025-4330). No picture is a link.
    """
    member = tarfile.data_filter(member, folder)
    return None if member.issym() or member.islnk() else member


class _Header(tarfile.TarInfo):
    """Without it tarfile takes a damaged header for the end, and all that follows is silently left out."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # the two empty blocks that end an archive
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(plain(error)) from None
