"""The synset of each of ImageNet's validation pictures, from what was published beside them.

The devkit's ILSVRC2012_validation_ground_truth.txt has the class id of picture i in line i. These ids
count in the devkit's own order (1 = n02119789, kit fox), which is *not* the sorted order of synsets
(first n01440764, tench) that labels follow. Which synset an id means stands in the same devkit's
meta.mat; torchvision.datasets.imagenet reads it in the same way. Text lists of ids that go round
(map_clsloc.txt, ILSVRC2012_mapping.txt, synset_words.txt) are not read: those of later devkits and the
sorted ones give other classes, and nothing in them tells. Kaggle's LOC_val_solution.csv names the synset
of each picture itself.
"""

import csv
import io
import re
import zlib
from pathlib import Path

from pipeline.config import UserError

from .archive import members
from .source import plain

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
CSV = "LOC_val_solution.csv"
FOLDERS = ("", "data", "ILSVRC2012_devkit_t12/data", "devkit/data")
ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
PICTURE = re.compile(r"ILSVRC2012_val_(\d{8})")


def synsets_of_val(root: Path) -> tuple[dict[int, str], Path]:
    """Number of the picture (from 1) to its synset, and the file that says so.

    :raises UserError: nothing in ``root`` says it, or it is said wrongly.
    """
    if (root / CSV).is_file():
        return _kaggle(root / CSV), root / CSV
    (truth_path, truth), meta = _devkit(root)
    synset = _meta(*meta)
    numbers = {}
    for line, word in enumerate(truth.decode("ascii", "replace").split(), 1):
        if not word.isdecimal() or int(word) not in synset:
            raise UserError(f"{truth_path}: line {line}: {word!r} is no class id from 1 to {len(synset)}")
        numbers[line] = synset[int(word)]
    if not numbers:
        raise UserError(f"{truth_path}: empty; a class id per validation picture belongs there")
    return numbers, truth_path


File = tuple[Path, bytes]


def _devkit(root: Path) -> tuple[File, File]:
    """Path and content of the ground truth and of meta.mat, from folders or from the archive."""
    files = {}
    for name in (GROUND_TRUTH, META):
        for folder in FOLDERS:
            path = root / folder / name
            if name not in files and path.is_file():
                files[name] = path, path.read_bytes()
    if len(files) < 2 and (root / ARCHIVE).is_file():
        inside = "ILSVRC2012_devkit_t12/data"
        for name, content in members(root / ARCHIVE, inside, (GROUND_TRUTH, META)):
            files[name] = root / ARCHIVE / inside / name, content
    for name in (GROUND_TRUTH, META):
        if name not in files:
            raise UserError(
                f"{root}: val is flat and {name}, needed for its labels, is missing; "
                f"put {ARCHIVE} or {CSV} into {root}"
            )
    return files[GROUND_TRUTH], files[META]


def _meta(path: Path, content: bytes) -> dict[int, str]:
    """Class id to synset; the leaves of meta.mat's tree are the 1,000 classes."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        rows = loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
        # By name: the devkits of other years call the field otherwise, and count otherwise.
        columns = (rows["ILSVRC2012_ID"], rows["WNID"], rows["num_children"])
        nodes = zip(*columns, strict=True)
        return {int(number): str(synset) for number, synset, children in nodes if children == 0}
    except (
        MatReadError,
        zlib.error,
        NotImplementedError,
        OSError,
        LookupError,
        ValueError,
        TypeError,
    ) as error:
        raise UserError(
            f"{path}: not the devkit's of 2012 ({plain(error)}); take that of {ARCHIVE}"
        ) from None


def _kaggle(path: Path) -> dict[int, str]:
    """From rows like 'ILSVRC2012_val_00048981,n03995372 85 1 499 272': a synset and its boxes."""
    numbers = {}
    with open(path, newline="", errors="replace") as file:
        for line, row in enumerate(csv.DictReader(file), 2):
            picture = PICTURE.fullmatch(row.get("ImageId") or "")
            words = (row.get("PredictionString") or "").split()
            if not picture or not words or not re.fullmatch(r"n\d{8}", words[0]):
                raise UserError(f"{path}: line {line}: no ImageId and PredictionString, picture and synset")
            numbers[int(picture[1])] = words[0]
    if not numbers:
        raise UserError(f"{path}: empty; a row per validation picture belongs there")
    return numbers
