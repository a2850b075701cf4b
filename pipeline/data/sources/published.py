"""What the published collections have in common: how they are found, and how their lists are read.

A collection's page, archives and folders are data (``Publication``). Wherever it lies below the folder that
the user names, paths within it are the same, so that an index made from it has the same fingerprint.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.config import UserError
from pipeline.progress import say

from .archive import LARGEST, unpack
from .source import Files, Options, Source


@dataclass(frozen=True)
class Part:
    """A piece of a collection that may come in an archive of its own.

    :ivar homes: folders that hold it, relative to the folder that the user names or an archive unpacks
        into; the published one first.
    :ivar known_by: a pattern (glob) that files in a home match.
    :ivar archives: names under which it is published.
    :ivar inner: name of the tar within, if one of the archives is a zip.
    """

    homes: tuple[str, ...]
    known_by: str
    archives: tuple[str, ...]
    inner: str | None = None

    def __str__(self) -> str:
        return f"{self.homes[0]}/{self.known_by} or {' or '.join(self.archives)}"


@dataclass(frozen=True)
class Publication:
    """:ivar page: where a user gets it. :ivar counts: published number of pictures per split."""

    title: str
    page: str
    parts: tuple[Part, ...]
    counts: dict[str, int]

    def need(self, root: Path | None, part: Part, options: Options) -> Path:
        """The folder that holds this part, unpacked if it must be.

        :raises UserError: it is not there; what is missing and where to get it.
        """
        found = self.find(root, part, options)
        if found is None:
            raise UserError(f"{root}: holds no {part}; {self.title} is at {self.page}")
        return found

    def find(self, root: Path | None, part: Part, options: Options) -> Path | None:
        """As ``need``; none if neither a folder nor an archive of this part is there."""
        if root is None:
            raise UserError(f"{self.title}: name the folder that holds {part}: --root DIR; see {self.page}")
        if not root.exists():
            raise UserError(f"{root}: no such folder; it should hold {part}; {self.title} is at {self.page}")
        names = [name for part in self.parts for name in part.archives]
        if root.is_file() and root.name not in names:
            raise UserError(f"{root}: none of {self.title}'s archives, which are {', '.join(names)}")
        home = _home(root, part)
        archive = None if home else _archive(root, part)
        if archive is None:
            return home
        if options.unpacked is None:
            raise UserError(
                f"{archive}: an archive; unpack it and name that folder, or name one to unpack it "
                "into (Options.unpacked; launch.prepare does)"
            )
        home = _home(unpack(archive, options.unpacked, part.inner), part)
        if home is None:
            raise UserError(f"{archive}: holds no {part.homes[0]}/{part.known_by}; fetch it from {self.page}")
        return home

    def tell(self, source: Source) -> Source:
        """The source again; a line says how much it holds, and what else was published."""
        counts = {name: len(split) for name, split in source.splits.items()}
        said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        other = [f"{name} {count:,}" for name, count in self.counts.items() if counts.get(name) != count]
        whole = f"the whole of it has {', '.join(other)}" if other else "complete"
        say(f"{self.title}: {len(source.classes)} classes, pictures: {said}; {whole}")
        return source


def _home(root: Path, part: Part) -> Path | None:
    """An archive that the user names is not passed over for a folder beside it."""
    if root.is_dir():
        for home in part.homes:
            if next((root / home).glob(part.known_by), None):
                return root / home
    return None


def _archive(root: Path, part: Part) -> Path | None:
    """In the user's folder or in one that should hold the part; beside an archive that the user names."""
    if root.is_file() and root.name in part.archives:
        return root
    root = root.parent if root.is_file() else root
    for folder in (root, *((root / home).parent for home in part.homes if home != ".")):
        for name in part.archives:
            if (folder / name).is_file():
                return folder / name
    return None


def lines(path: Path) -> list[str]:
    """The lines of a list, without the white space around them; empty lines don't count.

    :raises UserError: missing, not text, or nothing in it.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: too large for a list; fetch it again")
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: missing; unpack or fetch its archive again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: no text, so damaged; unpack or fetch its archive again") from None
    found = [line.strip() for line in text.split("\n") if line.strip()]
    if not found:
        raise UserError(f"{path}: empty; unpack or fetch its archive again")
    return found


def keyed(path: Path) -> dict[str, str]:
    """First word of each line to the rest of it, in the list's order: names may hold spaces.

    :raises UserError: as ``lines``; a line of one word, a first word that stands there twice.
    """
    found: dict[str, str] = {}
    for line in lines(path):
        key, *rest = line.split(None, 1)
        if not rest:
            raise UserError(f"{path}: the line {line!r} needs two words; unpack or fetch its archive again")
        if key in found:
            raise UserError(f"{path}: {key!r} is listed twice; unpack or fetch its archive again")
        found[key] = rest[0]
    return found


def same_keys(path: Path, found: Iterable[str], other: str, known: Iterable[str]) -> None:
    """:raises UserError: the list ``path`` is not of the pictures that the list called ``other`` has."""
    found, known = dict.fromkeys(found), dict.fromkeys(known)
    for key in known:
        if key not in found:
            raise UserError(f"{path}: lacks {key!r}, which {other} lists; fetch both again")
    for key in found:
        if key not in known:
            raise UserError(f"{path}: lists {key!r}, which {other} lacks; fetch both again")


def listed(root: Path, paths: Sequence[str], labels: np.ndarray, origin: Path, banner: int = 0) -> Files:
    """The pictures of a list, every one of which is there, and none twice.

    :param paths: relative to ``root``.
    :param origin: the list, for messages.
    :raises UserError: there is none, one is listed twice, leads out of ``root`` or is missing.
    """
    if not paths:
        raise UserError(f"{origin}: names no picture of a split; unpack or fetch its archive again")
    twice = next((path for path, times in Counter(paths).items() if times > 1), None)
    if twice:
        raise UserError(f"{origin}: lists {twice} twice; unpack or fetch its archive again")
    names: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, _, name = _inside(path, origin).rpartition("/")
        if folder not in names:
            names[folder] = set(_files(root / folder))
        if name not in names[folder]:
            missing.append(path)
    if missing:
        raise UserError(
            f"{root / missing[0]}: missing, {len(missing):,} in all of the {len(paths):,} pictures that "
            f"{origin} lists; unpack or fetch their archive again"
        )
    return Files(root, list(paths), labels, banner)


def _inside(path: str, origin: Path) -> str:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\\" in path or not path.isprintable():
        raise UserError(f"{origin}: lists {path!r}, which is no picture's name; fetch its archive again")
    return path


def _files(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as found:  # the kind of an entry comes with the listing: no stat per file
            yield from (entry.name for entry in found if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}") from None


def disjoint(splits: dict[str, Files]) -> None:
    """:raises UserError: a picture stands in two splits."""
    split_of: dict[str, str] = {}
    for name, pictures in splits.items():
        for path in pictures.paths:
            if split_of.setdefault(path, name) != name:
                raise UserError(f"{pictures.root / path}: listed both in {split_of[path]} and in {name}")
