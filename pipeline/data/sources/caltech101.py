"""Caltech-101 (Fei-Fei, Fergus & Perona 2004): ``101_ObjectCategories/<category>/image_0001.jpg``.

101 categories and BACKGROUND_Google, clutter. The transfer literature (Kornblith 2019, SimCLR, BYOL) counts
it as a class: its 3,060 training and 6,084 test pictures are all 9,144 of 102 classes. torchvision leaves it
out: 8,677 pictures. No split was published; the literature draws 30 training pictures per class and tests on
the rest. Here they are drawn without replacement, by seed and class name, whatever order a disk lists in.
"""

import re
from pathlib import Path

import numpy as np

from pipeline.config import UserError
from pipeline.progress import track

from .imagefolder import entries
from .published import Part, Publication
from .source import Files, Options, Source
from .subset import carve

TAR = "101_ObjectCategories.tar.gz"
PART = Part(
    ("101_ObjectCategories", "caltech101/101_ObjectCategories", "caltech-101/101_ObjectCategories", "."),
    "*/image_0001.jpg",
    (TAR, "caltech-101.zip"),
    TAR,
)
PAGE = "https://doi.org/10.22002/D1.20086"
BACKGROUND = "BACKGROUND_Google"
CALTECH = {
    True: Publication(f"Caltech-101 with {BACKGROUND}", PAGE, (PART,), {"train": 3060, "test": 6084}),
    False: Publication(f"Caltech-101 without {BACKGROUND}", PAGE, (PART,), {"train": 3030, "test": 5647}),
}
PICTURE = re.compile(r"image_\d{4}\.jpg")
TRAIN = 30  # pictures per class


def read_caltech101(root: Path | None, options: Options) -> Source:
    """Splits 'train' (30 pictures a class) and 'test' (the rest), drawn by ``options.seed``.

    The source's name says whether ``options.background`` makes it 102 classes or 101.

    :raises UserError: not found, a class of fewer than 31 pictures, no BACKGROUND_Google where it counts.
    """
    publication = CALTECH[options.background]
    home = publication.need(root, PART, options)
    classes, _ = entries(home, home)
    if options.background and BACKGROUND not in classes:
        raise UserError(
            f"{home}: no folder {BACKGROUND}, which counts as a class (--no-background: it does not); "
            f"it is at {PAGE}"
        )
    if not options.background:
        classes = [name for name in classes if name != BACKGROUND]
    name = "caltech101-102" if options.background else "caltech101-101"
    undivided = Source(name, classes, {"test": _scan(home, classes)})
    return publication.tell(carve(undivided, TRAIN, options.seed, name="train", from_="test"))


def _scan(home: Path, classes: list[str]) -> Files:
    """All pictures by class, then by number; stray files (Thumbs.db, 'tmp') are not called as they are."""
    paths, counts = [], []
    for name in track(classes, f"reading {home}", len(classes), "classes"):
        found = [file for file in entries(home / name, home)[1] if PICTURE.fullmatch(file)]
        if len(found) <= TRAIN:
            raise UserError(
                f"{home / name}: {len(found)} pictures image_0001.jpg …; {TRAIN} for training and one for "
                f"the test are needed; fetch it again from {PAGE}"
            )
        paths += [f"{name}/{file}" for file in found]
        counts.append(len(found))
    return Files(home, paths, np.repeat(np.arange(len(classes), dtype=np.int64), counts))
