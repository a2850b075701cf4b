"""FGVC-Aircraft (Maji et al. 2013), release 2013b: 10,000 pictures of 100 variants.

``fgvc-aircraft-2013b/data`` holds variants.txt, images_variant_{train,val,trainval,test}.txt and ``images``.
A line is '1025794 707-320' or '0481847 BAE 146-200': names hold spaces and slashes. The bottom 20 rows of
each picture are a copyright banner, to be cropped off before use (the publisher's page says so).
"""

from pathlib import Path

import numpy as np

from pipeline.config import UserError

from .published import Part, Publication, disjoint, keyed, lines, listed, same_keys
from .source import Files, Options, Source, nearest

PART = Part(("fgvc-aircraft-2013b/data", "data", "."), "variants.txt", ("fgvc-aircraft-2013b.tar.gz",))
AIRCRAFT = Publication(
    "FGVC-Aircraft 2013b",
    "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    (PART,),
    {"train": 3334, "val": 3333, "test": 3333},
)
BANNER = 20  # rows of pixels


def read_aircraft(root: Path | None, options: Options) -> Source:
    """Splits 'train', 'val' and 'test' as published, in the lists' order; classes in variants.txt's.

    :raises UserError: not found, lists that do not fit one another, a listed picture that is missing.
    """
    home = AIRCRAFT.need(root, PART, options)
    classes = lines(home / "variants.txt")
    if len(set(classes)) < len(classes):
        raise UserError(f"{home / 'variants.txt'}: names a variant twice; unpack or fetch its archive again")
    lists = {split: keyed(home / _name(split)) for split in ("train", "val", "test")}
    splits = {split: _pictures(home, split, variants, classes) for split, variants in lists.items()}
    disjoint(splits)
    _check_union(home, lists["train"] | lists["val"])
    return AIRCRAFT.tell(Source("aircraft", classes, splits))


def _name(split: str) -> str:
    return f"images_variant_{split}.txt"


def _pictures(home: Path, split: str, variants: dict[str, str], classes: list[str]) -> Files:
    label = {name: number for number, name in enumerate(classes)}
    for picture, name in variants.items():
        if name not in label:
            raise UserError(
                f"{home / _name(split)}: picture {picture}: {name!r} is not in variants.txt; "
                f"{nearest(name, classes)}"
            )
    labels = np.array([label[name] for name in variants.values()], np.int64)
    paths = [f"images/{picture}.jpg" for picture in variants]
    return listed(home, paths, labels, home / _name(split), BANNER)


def _check_union(home: Path, both: dict[str, str]) -> None:
    """:raises UserError: the list of trainval is there, and is not that of train and val together."""
    path = home / _name("trainval")
    if not path.exists():
        return
    found, other = keyed(path), f"{_name('train')} or {_name('val')}"
    same_keys(path, found, other, both)
    for picture, name in found.items():
        if name != both[picture]:
            raise UserError(
                f"{path}: picture {picture} is {name!r}, {both[picture]!r} in {other}; fetch both again"
            )
