"""CUB-200-2011 (Wah et al. 2011): ``CUB_200_2011/images/<class>/*.jpg`` and lists beside ``images``.

images.txt, image_class_labels.txt, train_test_split.txt and classes.txt each start a line with an id. They
are joined by that id, not by line. Class ids count from 1; is_training_image is 1 or 0.
"""

from pathlib import Path

import numpy as np

from pipeline.config import UserError

from .published import Part, Publication, keyed, listed, same_keys
from .source import Options, Source

PART = Part(("CUB_200_2011", "."), "images.txt", ("CUB_200_2011.tgz",))
CUB = Publication("CUB-200-2011", "https://doi.org/10.22002/D1.20098", (PART,), {"train": 5994, "test": 5794})
SPLITS = {"1": "train", "0": "test"}


def read_cub200(root: Path | None, options: Options) -> Source:
    """Splits 'train' and 'test' as published, pictures by id; classes by id, called as their folders are.

    :raises UserError: not found, lists that do not fit one another, a listed picture that is missing.
    """
    home = CUB.need(root, PART, options)
    images = keyed(home / "images.txt")
    classes = _classes(home / "classes.txt")
    class_of = _joined(home / "image_class_labels.txt", images, {str(i + 1) for i in range(len(classes))})
    split_of = _joined(home / "train_test_split.txt", images, set(SPLITS))
    for number, path in images.items():
        name = classes[int(class_of[number]) - 1]
        if not path.startswith(f"{name}/"):
            raise UserError(
                f"{home / 'image_class_labels.txt'}: picture {number} is {name!r}, but images.txt has it "
                f"in {path!r}; fetch both again"
            )
    splits = {}
    for flag, split in SPLITS.items():
        numbers = [number for number in sorted(images, key=int) if split_of[number] == flag]
        labels = np.array([int(class_of[number]) - 1 for number in numbers], np.int64)
        paths = [f"images/{images[number]}" for number in numbers]
        splits[split] = listed(home, paths, labels, home / "images.txt")
    return CUB.tell(Source("cub200", classes, splits))


def _classes(path: Path) -> list[str]:
    names = keyed(path)
    if {*names} != {str(i + 1) for i in range(len(names))}:
        raise UserError(f"{path}: the ids are not 1 to {len(names)}; unpack or fetch its archive again")
    return [names[str(i + 1)] for i in range(len(names))]


def _joined(path: Path, images: dict[str, str], values: set[str]) -> dict[str, str]:
    """Picture's id to what this list says of it, one of ``values``."""
    found = keyed(path)
    same_keys(path, found, "images.txt", images)
    for number, value in found.items():
        if not number.isdecimal():
            raise UserError(f"{path}: {number!r} is no picture's id; unpack or fetch its archive again")
        if value not in values:
            known = "1 or 0" if values == {"0", "1"} else f"a class from 1 to {len(values)}"
            raise UserError(f"{path}: picture {number}: {value!r} is not {known}; fetch its archive again")
    return found
