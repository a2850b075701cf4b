"""PASCAL VOC 2007 classification (Everingham et al. 2010): which of 20 classes each picture shows.

``VOCdevkit/VOC2007/ImageSets/Main/<class>_<split>.txt`` has lines '000005 -1', '000007  1': 1 the class is
shown, -1 it is not, 0 only "difficult" objects of it are. All three are kept as they are; what 0 means is
for the metric to say. A picture that shows none of the classes is kept too, as a negative for all.

The test pictures come in a tar of their own. Where it was not fetched there is no split 'test'.
"""

from pathlib import Path

import numpy as np

from pipeline.config import UserError
from pipeline.progress import say

from .published import Part, Publication, disjoint, keyed, lines, listed, same_keys
from .source import Files, Options, Source

CLASSES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
HOMES = ("VOCdevkit/VOC2007", "VOC2007", ".")
LISTS = "ImageSets/Main"
TRAINVAL = Part(HOMES, f"{LISTS}/*_train.txt", ("VOCtrainval_06-Nov-2007.tar",))
TEST = Part(HOMES, f"{LISTS}/*_test.txt", ("VOCtest_06-Nov-2007.tar",))
VOC = Publication(
    "VOC2007",
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/",
    (TRAINVAL, TEST),
    {"train": 2501, "val": 2510, "test": 4952},
)
FLAGS = {"1": 1, "+1": 1, "0": 0, "-1": -1}


def read_voc2007(root: Path | None, options: Options) -> Source:
    """Splits 'train', 'val' and, if it was fetched, 'test'; pictures by id, labels (N, 20) of 1, 0 and -1.

    :raises UserError: not found, lists that do not fit one another, a listed picture that is missing.
    """
    home = VOC.need(root, TRAINVAL, options)
    splits = {split: _split(home, split) for split in ("train", "val")}
    _check_union(home, splits)
    test = VOC.find(root, TEST, options)
    if test is None:
        say(f"VOC2007: {home / LISTS} has no *_test.txt: no split test; {TEST.archives[0]} is at {VOC.page}")
    else:
        splits["test"] = _split(test, "test")
    disjoint(splits)
    return VOC.tell(Source("voc2007", list(CLASSES), splits))


def _split(home: Path, split: str) -> Files:
    first = home / LISTS / f"{CLASSES[0]}_{split}.txt"
    shown = {}  # class to the picture's id to what the class's list says of it
    for name in CLASSES:
        path = home / LISTS / f"{name}_{split}.txt"
        shown[name] = keyed(path)
        same_keys(path, shown[name], first.name, shown[CLASSES[0]])
        for picture, flag in shown[name].items():
            if flag not in FLAGS:
                raise UserError(f"{path}: picture {picture}: {flag!r} is not 1, -1 or 0; fetch it again")
    pictures = sorted(shown[CLASSES[0]])
    labels = [[FLAGS[shown[name][picture]] for name in CLASSES] for picture in pictures]
    paths = [f"JPEGImages/{picture}.jpg" for picture in pictures]
    return listed(home, paths, np.array(labels, np.int8), first)


def _check_union(home: Path, splits: dict[str, Files]) -> None:
    """:raises UserError: trainval.txt is there and is not train and val together."""
    path = home / LISTS / "trainval.txt"
    if not path.exists():
        return
    both = [Path(picture).stem for split in splits.values() for picture in split.paths]
    same_keys(path, lines(path), f"{CLASSES[0]}_train.txt or {CLASSES[0]}_val.txt", both)
