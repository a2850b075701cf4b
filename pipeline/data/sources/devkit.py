"""The synset of each of ImageNet's validation pictures, from what was published beside them.

The devkit's ILSVRC2012_validation_ground_truth.txt has the class id of picture i in line i. These ids
count in the devkit's own order (1 = n02119789, kit fox), which is *not* the sorted order of synsets
(first n01440764, tench) that labels follow. Which synset an id means stands in the devkit's meta.mat,
or in one of the text lists people made of it. torchvision.datasets.imagenet reads the same way.
"""

import csv
import io
import re
from pathlib import Path

from pipeline.config import UserError

from .archive import members

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
LISTS = ("ILSVRC2012_mapping.txt", "map_clsloc.txt")  # '1 n02119789' and 'n02119789 1 kit_fox'
CSV = "LOC_val_solution.csv"
FOLDERS = ("", "data", "ILSVRC2012_devkit_t12/data", "devkit/data")
ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
PICTURE = re.compile(r"ILSVRC2012_val_(\d{8})")


def synsets_of_val(root: Path) -> tuple[dict[int, str], Path]:
    """Number of the picture (from 1) to its synset, and the file that says so.

    :raises UserError: nothing in ``root`` says it, or it is said wrongly.
    """
    if (root / CSV).is_file():
        return _kaggle((root / CSV).read_text(), root / CSV), root / CSV
    files = _devkit(root)
    if GROUND_TRUTH not in files:
        raise UserError(f"{root}: val is flat and its labels are missing; put {ARCHIVE} or {CSV} into {root}")
    truth_path, truth = files[GROUND_TRUTH]
    if META in files:
        synset = _meta(*files[META])
    else:
        listed = next((name for name in LISTS if name in files), None)
        if listed is None:
            lists = " or ".join(LISTS)
            raise UserError(f"{truth_path}: which synsets its ids mean is missing; add {META} (or {lists})")
        synset = _list(*files[listed])
    numbers = {}
    for line, word in enumerate(truth.decode("ascii", "replace").split(), 1):
        if not word.isdecimal() or int(word) not in synset:
            raise UserError(f"{truth_path}: line {line}: {word!r} is no class id from 1 to {len(synset)}")
        numbers[line] = synset[int(word)]
    if not numbers:
        raise UserError(f"{truth_path}: empty; a class id per validation picture belongs there")
    return numbers, truth_path


def _devkit(root: Path) -> dict[str, tuple[Path, bytes]]:
    """Those of the devkit's files that are there: name to path and content."""
    files = {}
    for name in (GROUND_TRUTH, META, *LISTS):
        for folder in FOLDERS:
            path = root / folder / name
            if name not in files and path.is_file():
                files[name] = path, path.read_bytes()
    if GROUND_TRUTH not in files and (root / ARCHIVE).is_file():
        inside = "ILSVRC2012_devkit_t12/data"
        for name, content in members(root / ARCHIVE, inside, (GROUND_TRUTH, META)):
            files[name] = root / ARCHIVE / inside / name, content
    return files


def _meta(path: Path, content: bytes) -> dict[int, str]:
    """Class id to synset; the leaves of meta.mat's tree are the 1,000 classes."""
    from scipy.io import loadmat

    try:
        rows = loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
        # ILSVRC2012_ID, WNID, words, gloss, num_children, ...
        return {int(row[0]): str(row[1]) for row in rows if int(row[4]) == 0}
    except (ValueError, KeyError, IndexError, TypeError, NotImplementedError, OSError) as error:
        raise UserError(f"{path}: not the devkit's {META} ({error}); take it from {ARCHIVE}") from None


def _list(path: Path, content: bytes) -> dict[int, str]:
    """Class id to synset, from lines that give both in either order."""
    synset = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        words = line.split()[:2]
        ids = [int(word) for word in words if word.isdecimal()]
        synsets = [word for word in words if re.fullmatch(r"n\d{8}", word)]
        if len(ids) != 1 or len(synsets) != 1:
            raise UserError(
                f"{path}: line {number}: {line!r} gives no id with its synset, like '1 n02119789'"
            )
        synset[ids[0]] = synsets[0]
    in_order = [synset[key] for key in sorted(synset)]
    if len(in_order) > 1 and in_order == sorted(in_order):
        # Lists of the sorted synsets are many (synset_words.txt); with them every label would be wrong.
        raise UserError(f"{path}: in sorted order, which is not the devkit's (id 1 is n02119789); use {META}")
    return synset


def _kaggle(text: str, path: Path) -> dict[int, str]:
    """From rows like 'ILSVRC2012_val_00048981,n03995372 85 1 499 272': a synset and its boxes."""
    numbers = {}
    for row in csv.DictReader(io.StringIO(text)):
        picture = PICTURE.fullmatch(row.get("ImageId") or "")
        words = (row.get("PredictionString") or "").split()
        if not picture or not words or not re.fullmatch(r"n\d{8}", words[0]):
            raise UserError(f"{path}: {row} gives no ImageId with a PredictionString that starts by a synset")
        numbers[int(picture[1])] = words[0]
    if not numbers:
        raise UserError(f"{path}: empty; a row per validation picture belongs there")
    return numbers
