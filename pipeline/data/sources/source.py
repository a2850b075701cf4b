"""What a source is: named classes, and splits of picture files or of small raw pictures."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Inside:
    """Where pictures lie within uncompressed archives: they are read in place, never unpacked.

    :ivar archives: paths relative to the root of the ``Files``.
    :ivar number: (N,) int64: which archive. :ivar offset: (N,) int64: first byte of the picture in it.
    :ivar size: (N,) int64: bytes.
    """

    archives: list[str]
    number: np.ndarray
    offset: np.ndarray
    size: np.ndarray

    def take(self, rows: np.ndarray) -> "Inside":
        return Inside(self.archives, self.number[rows], self.offset[rows], self.size[rows])


@dataclass(frozen=True)
class Files:
    """Encoded pictures on disk.

    :ivar root: folder that the paths are relative to.
    :ivar paths: of N pictures, '/' between folders; the same order on every machine. Within an archive
        the member's name, by which the picture is told.
    :ivar labels: (N,) int64; or (N, C) int8 where a picture shows several classes: 1 shown, -1 not shown,
        0 hard to tell (VOC's "difficult").
    :ivar banner: rows of pixels at the bottom of every picture that do not belong to it.
    :ivar inside: where the pictures lie in archives; none if each is a file of its own.
    """

    root: Path
    paths: list[str]
    labels: np.ndarray
    banner: int = 0
    inside: Inside | None = None

    def __post_init__(self):
        assert len(self.labels) == len(self.paths), f"{self.labels.shape}, {len(self.paths)} paths"
        assert (self.labels.ndim, self.labels.dtype) in ((1, np.int64), (2, np.int8)), self.labels.dtype

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray, labels: np.ndarray) -> "Files":
        """These rows, in this order, under these labels."""
        inside = self.inside and self.inside.take(rows)
        return Files(self.root, [self.paths[row] for row in rows], labels, self.banner, inside)


@dataclass(frozen=True)
class Pixels:
    """Small raw pictures in memory.

    :ivar pixels: (N, H, W, 3) uint8, RGB.
    :ivar labels: (N,) int64.
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        assert self.pixels.ndim == 4, self.pixels.shape
        assert self.pixels.shape[3] == 3, self.pixels.shape
        assert self.pixels.dtype == np.uint8, self.pixels.dtype
        assert self.labels.shape == self.pixels.shape[:1], f"{self.labels.shape}, {self.pixels.shape}"
        assert self.labels.dtype == np.int64, self.labels.dtype

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: np.ndarray, labels: np.ndarray) -> "Pixels":
        """These rows, in this order, under these labels."""
        return Pixels(self.pixels[rows], labels)


@dataclass(frozen=True)
class Source:
    """Labelled pictures as somebody published them.

    :ivar classes: label i is ``classes[i]``.
    :ivar splits: by the names 'train', 'val', 'test'; not every source has each.
    """

    name: str
    classes: list[str]
    splits: dict[str, Files | Pixels]

    def __post_init__(self):
        for name, split in self.splits.items():
            if split.labels.ndim == 2:
                assert split.labels.shape[1] == len(self.classes), f"{self.name} {name}: {split.labels.shape}"
                continue
            inside = (split.labels >= 0) & (split.labels < len(self.classes))
            assert inside.all(), f"{self.name} {name}: a label outside 0..{len(self.classes) - 1}"

    @property
    def multilabel(self) -> bool:
        """A picture may show several classes."""
        return any(split.labels.ndim == 2 for split in self.splits.values())


@dataclass(frozen=True)
class Options:
    """What a user may choose about a source.

    :ivar seed: of splits that are drawn because none was published.
    :ivar background: Caltech-101's BACKGROUND_Google counts as a class.
    :ivar unpacked: folder into which compressed archives are unpacked; none = they are refused.
    """

    seed: int = 0
    background: bool = True
    unpacked: Path | None = None


def plain(error: BaseException) -> str:
    """What an error says, in one line; its type if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: what was probably meant, or else what there is."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1, 0.5)
    if near:
        return f"did you mean {near[0]}?"
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return f"there are {', '.join(known[:20])}{more}"
