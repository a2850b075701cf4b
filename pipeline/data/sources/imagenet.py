"""ImageNet (ILSVRC2012): ``root/train/n<8 digits>/*.JPEG`` and ``root/val``, in class folders or flat.

A flat val, ``ILSVRC2012_val_000NNNNN.JPEG``, gets its labels from the devkit (see devkit.py) or from
Kaggle's LOC_val_solution.csv. Classes are the sorted synset ids, label 0 n01440764, as in torchvision,
timm and everybody's weights. The test labels were never published: there is no test split.
"""

import re
from pathlib import Path

import numpy as np

from pipeline.config import UserError

from .devkit import synsets_of_val
from .imagefolder import agree, class_folders, entries, existing, scan
from .source import Files, Source

SYNSET = re.compile(r"n\d{8}")
FLAT = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
KAGGLE = Path("ILSVRC/Data/CLS-LOC")


def read_imagenet(root: Path | None) -> Source:
    """The picture files of ``root`` (train and, if it is there, val), or of Kaggle's archive unpacked.

    :raises UserError: no train, archives not unpacked, folders that are no synsets, splits that
        disagree on the classes, a flat val whose labels are missing or don't fit.
    """
    root = existing(root, "imagenet")
    pictures = root
    if not (root / "train").is_dir() and (root / KAGGLE / "train").is_dir():
        pictures = root / KAGGLE
    classes = _synsets(pictures, "train")
    splits = {"train": scan(pictures, "train", classes)}
    if (pictures / "val").is_dir():
        flat = _flat(pictures)
        if flat:
            splits["val"] = _label_flat(root, pictures, flat, classes)
        else:
            agree(classes, _synsets(pictures, "val"), pictures / "val")
            splits["val"] = scan(pictures, "val", classes)
    return Source("imagenet", classes, splits)


def _synsets(pictures: Path, split: str) -> list[str]:
    folder = pictures / split
    if not folder.is_dir():
        raise UserError(f"{pictures}: no folder {split}; unpack ILSVRC2012_img_{split}.tar into {folder}")
    packed = next(folder.glob("n*.tar"), None)
    if packed:
        raise UserError(f"{packed}: an archive not unpacked; unpack it into {packed.with_suffix('')}")
    names = class_folders(folder, pictures)
    for name in names:
        if not SYNSET.fullmatch(name):
            raise UserError(f"{folder / name}: no synset (n and 8 digits); for other classes use imagefolder")
    return names


def _flat(pictures: Path) -> dict[int, str]:
    """Number to file name of the pictures that lie in val itself."""
    folder = pictures / "val"
    folders, files = entries(folder, pictures)
    numbers = {int(match[1]): name for name in files if (match := FLAT.fullmatch(name))}
    if numbers and folders:
        raise UserError(f"{folder}: both class folders and {len(numbers)} pictures beside them; keep one")
    if files and not numbers and not folders:
        raise UserError(f"{folder / files[0]}: a flat val needs the names ILSVRC2012_val_<8 digits>.JPEG")
    return numbers


def _label_flat(root: Path, pictures: Path, flat: dict[int, str], classes: list[str]) -> Files:
    synsets, origin = synsets_of_val(root)
    missing = sorted(set(synsets) - set(flat))
    if missing:
        name = f"ILSVRC2012_val_{missing[0]:08d}.JPEG"
        raise UserError(f"{pictures / 'val' / name}: missing; {origin} labels {len(synsets)} pictures")
    label = {synset: number for number, synset in enumerate(classes)}
    labels = []
    for number in sorted(flat):
        place = pictures / "val" / flat[number]
        if number not in synsets:
            raise UserError(f"{place}: has no label in {origin}, which ends at {max(synsets)}")
        if synsets[number] not in label:
            raise UserError(f"{place}: of class {synsets[number]}, which train lacks; both need the same")
        labels.append(label[synsets[number]])
    unseen = sorted(set(classes) - set(synsets.values()))
    if unseen:
        raise UserError(f"{pictures / 'val'}: has no class {unseen[0]!r} as train has; both need the same")
    paths = [f"val/{flat[number]}" for number in sorted(flat)]
    return Files(pictures, paths, np.array(labels, np.int64))
