"""Named files of a folder or of a tar archive, one after the other, in memory.

Archives are never unpacked onto the disk, so no member's name, link or mode can reach outside.
"""

import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.config import UserError

from .source import plain

LARGEST = 64 * 2**20  # bytes; no file that is asked for here has more


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
