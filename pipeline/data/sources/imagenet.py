"""ImageNet (ILSVRC2012): ``root/train/n<8 digits>/*.JPEG`` and ``root/val``, in class folders or flat.

Where a folder is missing, the archive of that split as it was published is read in place, never unpacked:
ILSVRC2012_img_train.tar, a tar of a tar per class, and ILSVRC2012_img_val.tar, which is flat. The pictures,
their names and their order are those of the folders.

A flat val, ``ILSVRC2012_val_000NNNNN.JPEG``, gets its labels from the devkit (see devkit.py) or from
Kaggle's LOC_val_solution.csv. Classes are the sorted synset ids, label 0 n01440764, as in torchvision,
timm and everybody's weights. The test labels were never published: there is no test split.
"""

import re
from pathlib import Path

import numpy as np

from pipeline.config import UserError

from .devkit import synsets_of_val
from .imagefolder import PICTURES, agree, class_folders, entries, existing, scan
from .source import Files, Inside, Source
from .tars import Member, members_of, nested_members_of

SYNSET = re.compile(r"n\d{8}")
FLAT = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
KAGGLE = Path("ILSVRC/Data/CLS-LOC")
TAR = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}


def read_imagenet(root: Path | None) -> Source:
    """The picture files of ``root`` (train and, if it is there, val), or of Kaggle's archive unpacked.

    :raises UserError: no train, folders that are no synsets, splits that disagree on the classes, a flat
        val whose labels are missing or don't fit, an archive that is compressed, cut off or damaged.
    """
    if root is not None and Path(root).is_file():
        raise UserError(f"{root}: a file; name the folder that holds it, {TAR['train']} and {TAR['val']}")
    root = existing(root, "imagenet")
    kaggles = not (root / "train").is_dir() and (root / KAGGLE / "train").is_dir()
    pictures = root / KAGGLE if kaggles else root
    classes, train = _train(pictures)
    val = _val(root, pictures, classes)
    return Source("imagenet", classes, {"train": train} | ({"val": val} if val else {}))


def _train(pictures: Path) -> tuple[list[str], Files]:
    if not (pictures / "train").is_dir() and (pictures / TAR["train"]).is_file():
        return _train_tar(pictures)
    classes = _synsets(pictures, "train")
    return classes, scan(pictures, "train", classes)


def _val(root: Path, pictures: Path, classes: list[str]) -> Files | None:
    folder = pictures / "val"
    if folder.is_dir():
        flat = _flat(folder, *entries(folder, pictures))
        if flat:
            labels = _labels(root, folder, flat, classes)
            return Files(pictures, [f"val/{name}" for name in flat.values()], labels)
        agree(classes, _synsets(pictures, "val"), folder)
        return scan(pictures, "val", classes)
    return _val_tar(root, pictures, classes) if (pictures / TAR["val"]).is_file() else None


def _synsets(pictures: Path, split: str) -> list[str]:
    folder = pictures / split
    if not folder.is_dir():
        raise UserError(f"{pictures}: neither a folder {split} nor {TAR[split]}; one of them belongs there")
    packed = next(folder.glob("n*.tar"), None)
    if packed:
        raise UserError(
            f"{packed}: an archive not unpacked; unpack it into {packed.with_suffix('')}, or name a folder "
            f"that holds {TAR[split]} and no {split}: it is read in place"
        )
    names = class_folders(folder, pictures)
    for name in names:
        if not SYNSET.fullmatch(name):
            raise UserError(f"{folder / name}: no synset (n and 8 digits); for other classes use imagefolder")
    return names


def _train_tar(root: Path) -> tuple[list[str], Files]:
    """The classes and the pictures of a tar that holds ``n<8 digits>.tar`` for each class."""
    tar = root / TAR["train"]
    found: dict[str, list[Member]] = {}  # class to its pictures, named as below root
    for name, members in nested_members_of(tar):
        synset = name.removesuffix(".tar")
        if not SYNSET.fullmatch(synset):
            raise UserError(f"{tar}: {name}: no synset (n and 8 digits); fetch it again")
        pictures = [m._replace(name=f"train/{synset}/{m.name}") for m in members if _is_picture(m.name)]
        if not pictures:
            raise UserError(f"{tar}: {name}: a class without pictures ({' '.join(PICTURES)})")
        # As a scan of folders has them: folder by folder.
        found[synset] = sorted(pictures, key=lambda m: m.name.rpartition("/")[::2])
    if not found:
        raise UserError(
            f"{tar}: holds no n<8 digits>.tar; the published one has one per class; "
            f"unpack any other into {root / 'train'}"
        )
    classes = sorted(found)
    counts = [len(found[name]) for name in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return classes, _in_tar(tar, [member for name in classes for member in found[name]], labels)


def _val_tar(root: Path, pictures: Path, classes: list[str]) -> Files:
    tar = pictures / TAR["val"]
    places = {member.name: member for member in members_of(tar) if _is_picture(member.name)}
    folders = sorted({name.partition("/")[0] for name in places if "/" in name})
    if folders:
        raise UserError(
            f"{tar}: holds the folder {folders[0]}; the published one has its pictures beside one another; "
            f"unpack this one into {pictures / 'val'}"
        )
    if not places:
        raise UserError(f"{tar}: holds no pictures ({' '.join(PICTURES)}); fetch it again")
    flat = _flat(tar, [], sorted(places))
    labels = _labels(root, tar, flat, classes)
    return _in_tar(tar, [places[name]._replace(name=f"val/{name}") for name in flat.values()], labels)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES)


def _in_tar(tar: Path, members: list[Member], labels: np.ndarray) -> Files:
    names, offsets, sizes = zip(*members, strict=True)
    number = np.zeros(len(members), np.int64)
    inside = Inside([tar.name], number, np.array(offsets, np.int64), np.array(sizes, np.int64))
    return Files(tar.parent, list(names), labels, inside=inside)


def _flat(place: Path, folders: list[str], files: list[str]) -> dict[int, str]:
    """Number to file name of the pictures that lie in val itself, by number.

    :param place: the folder or the archive that is val, for messages.
    """
    numbers = {int(match[1]): name for name in files if (match := FLAT.fullmatch(name))}
    if numbers and folders:
        raise UserError(f"{place}: both class folders and {len(numbers)} pictures beside them; keep one")
    if files and not numbers and not folders:
        raise UserError(f"{place / files[0]}: a flat val needs the names ILSVRC2012_val_<8 digits>.JPEG")
    return dict(sorted(numbers.items()))


def _labels(root: Path, place: Path, flat: dict[int, str], classes: list[str]) -> np.ndarray:
    """(N,) of the pictures in ``flat``, in its order.

    :param place: as in ``_flat``.
    """
    synsets, origin = synsets_of_val(root)
    missing = sorted(set(synsets) - set(flat))
    if missing:
        name = f"ILSVRC2012_val_{missing[0]:08d}.JPEG"
        raise UserError(f"{place / name}: missing; {origin} labels {len(synsets)} pictures")
    label = {synset: number for number, synset in enumerate(classes)}
    labels = []
    for number, name in flat.items():
        if number not in synsets:
            raise UserError(f"{place / name}: has no label in {origin}, which ends at {max(synsets)}")
        if synsets[number] not in label:
            raise UserError(
                f"{place / name}: of class {synsets[number]}, which train lacks; both need the same"
            )
        labels.append(label[synsets[number]])
    unseen = sorted(set(classes) - set(synsets.values()))
    if unseen:
        raise UserError(f"{place}: has no class {unseen[0]!r} as train has; both need the same")
    return np.array(labels, np.int64)
