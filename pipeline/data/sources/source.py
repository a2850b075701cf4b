"""What a source is: named classes, and splits of picture files or of small raw pictures."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Files:
    """Encoded pictures on disk.

    :ivar root: folder that the paths are relative to.
    :ivar paths: of N pictures, '/' between folders; the same order on every machine.
    :ivar labels: (N,) int64.
    """

    root: Path
    paths: list[str]
    labels: np.ndarray

    def __post_init__(self):
        assert self.labels.shape == (len(self.paths),), f"{self.labels.shape}, {len(self.paths)} paths"
        assert self.labels.dtype == np.int64, self.labels.dtype

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray, labels: np.ndarray) -> "Files":
        """These rows, in this order, under these labels."""
        return Files(self.root, [self.paths[row] for row in rows], labels)


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
            inside = (split.labels >= 0) & (split.labels < len(self.classes))
            assert inside.all(), f"{self.name} {name}: a label outside 0..{len(self.classes) - 1}"


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
