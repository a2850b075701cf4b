"""Stanford Cars (Krause et al. 2013): 16,185 pictures of 196 models.

``stanford_cars`` holds ``cars_train`` and ``cars_test`` (pictures), ``devkit`` and, outside or inside that,
cars_test_annos_withlabels.mat: the devkit's own cars_test_annos.mat has no labels. Classes count from 1.
"""

from pathlib import Path

import numpy as np

from pipeline.config import UserError

from .matlab import variable
from .published import Part, Publication, listed
from .source import Files, Options, Source, plain


def _folder(name: str, known_by: str, archive: str) -> Part:
    nested = f"{name}/{name}"  # as in Kaggle's copy
    homes = (f"stanford_cars/{name}", name, f"stanford_cars/{nested}", nested)
    return Part(homes, known_by, (archive,))


DEVKIT = _folder("devkit", "cars_meta.mat", "car_devkit.tgz")
PICTURES = {
    "train": _folder("cars_train", "*.jpg", "cars_train.tgz"),
    "test": _folder("cars_test", "*.jpg", "cars_test.tgz"),
}
# The publisher's own page is gone; that thread has where the parts are now.
CARS = Publication(
    "Stanford Cars",
    "https://github.com/pytorch/vision/issues/7545",
    (DEVKIT, *PICTURES.values()),
    {"train": 8144, "test": 8041},
)
LABELLED = "cars_test_annos_withlabels.mat"


def read_cars(root: Path | None, options: Options) -> Source:
    """Splits 'train' and 'test' as published, in the annotations' order.

    :raises UserError: not found, no labels of the test pictures, annotations that are none, a listed
        picture that is missing.
    """
    devkit = CARS.need(root, DEVKIT, options)
    annotations = {"train": devkit / "cars_train_annos.mat", "test": _labelled(root, devkit)}
    classes = [str(name) for name in variable(devkit / "cars_meta.mat", "class_names")]
    splits = {}
    for split, path in annotations.items():
        home = CARS.need(root, PICTURES[split], options)
        splits[split] = _split(home, path, classes)
    return CARS.tell(Source("cars", classes, splits))


def _labelled(root: Path, devkit: Path) -> Path:
    folder = root if root.is_dir() else root.parent
    for place in (devkit.parent, devkit, folder, folder / "stanford_cars"):
        if (place / LABELLED).is_file():
            return place / LABELLED
    raise UserError(
        f"{folder}: {LABELLED} is missing (cars_test_annos.mat has no labels); put it there; "
        f"it is at {CARS.page}"
    )


def _split(home: Path, path: Path, classes: list[str]) -> Files:
    rows = variable(path, "annotations")
    try:
        names, numbers = [str(name) for name in rows["fname"]], [int(number) for number in rows["class"]]
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise UserError(
            f"{path}: no annotations with fname and class ({plain(error)}); fetch it again"
        ) from None
    for name, number in zip(names, numbers, strict=True):
        if not 1 <= number <= len(classes):
            raise UserError(f"{path}: {name}: class {number} is not from 1 to {len(classes)}; fetch it again")
    paths = [f"{home.name}/{name}" for name in names]
    return listed(home.parent, paths, np.array(numbers, np.int64) - 1, path)
