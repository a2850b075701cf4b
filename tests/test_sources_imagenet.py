"""ImageNet's layouts: labels follow the sorted synsets, whatever order the devkit counts in."""

import csv
import hashlib
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from test_sources import draw, rows
from torchvision.datasets import imagenet

from pipeline.config import UserError
from pipeline.data.sources import read

# The first four of ILSVRC2012's validation pictures: devkit id and synset.
VAL = [(490, "n01751748"), (361, "n09193705"), (171, "n02105855"), (822, "n04263257")]
SORTED = ["n01751748", "n02105855", "n04263257", "n09193705"]


def write_ilsvrc(root: Path) -> Path:
    """A small ILSVRC2012: two training pictures a class, and a flat val of four."""
    for synset in SORTED:
        draw(root / "train" / synset / f"{synset}_7.JPEG")
        draw(root / "train" / synset / f"{synset}_10.JPEG")
    for number in range(1, 5):
        draw(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    return root


@pytest.fixture
def ilsvrc(tmp_path):
    return write_ilsvrc(tmp_path)


def write_devkit(folder: Path, field="ILSVRC2012_ID", truth=tuple(number for number, _ in VAL)) -> None:
    """meta.mat as the devkit's: leaves in the devkit's order, then inner nodes of the tree."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes = [(*leaf, "sea snake, alp", "a gloss", 0) for leaf in sorted(VAL)]
    nodes += [(1001, "n00001740", "entity", "everything", 2)]
    names = [field, "WNID", "words", "gloss", "num_children"]
    synsets = np.array(nodes, dtype=[(name, object) for name in names])[:, None]
    savemat(folder / "meta.mat", {"synsets": synsets})
    lines = "".join(f"{number}\n" for number in truth)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)


def pack_devkit(root: Path) -> Path:
    write_devkit(root.parent / "unpacked/data")
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        tar.add(root.parent / "unpacked", "ILSVRC2012_devkit_t12")
    return root / "ILSVRC2012_devkit_t12.tar.gz"


def write_csv(root: Path) -> None:
    with open(root / "LOC_val_solution.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ImageId", "PredictionString"])
        for number in (3, 1, 4, 2):
            synset = VAL[number - 1][1]
            table.writerow([f"ILSVRC2012_val_{number:08d}", f"{synset} 85 1 499 272 {synset} 1 2 3 4 "])


BESIDE = {
    "csv": write_csv,
    "archive": pack_devkit,
    "root": write_devkit,
    "data": lambda root: write_devkit(root / "data"),
    "unpacked": lambda root: write_devkit(root / "ILSVRC2012_devkit_t12/data"),
}


@pytest.mark.parametrize("place", BESIDE)
def test_imagenet_flat_val_gets_its_labels_by_synset_not_by_devkit_id(ilsvrc, place):
    BESIDE[place](ilsvrc)
    source = read("imagenet", ilsvrc)
    assert source.classes == SORTED
    assert list(source.splits) == ["train", "val"]
    expected = [(f"val/ILSVRC2012_val_{i:08d}.JPEG", synset) for i, (_, synset) in enumerate(VAL, 1)]
    assert rows(source.splits["val"], source.classes) == expected
    train = rows(source.splits["train"], source.classes)
    assert train[:2] == [(f"train/n01751748/n01751748_{number}.JPEG", "n01751748") for number in (10, 7)]
    assert [synset for _, synset in train] == [synset for synset in SORTED for _ in range(2)]


def test_imagenet_devkit_is_read_as_torchvision_reads_it(ilsvrc, monkeypatch):
    archive = pack_devkit(ilsvrc)
    known = (archive.name, hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setitem(imagenet.ARCHIVE_META, "devkit", known)
    imagenet.parse_devkit_archive(str(ilsvrc))
    source = read("imagenet", ilsvrc)
    ours = [source.classes[label] for label in source.splits["val"].labels]
    assert ours == list(imagenet.load_meta_file(str(ilsvrc))[1])


def test_imagenet_val_in_class_folders_and_kaggles_tree(ilsvrc):
    write_csv(ilsvrc)
    inner = ilsvrc / "ILSVRC/Data/CLS-LOC"
    inner.mkdir(parents=True)
    os.rename(ilsvrc / "train", inner / "train")
    os.rename(ilsvrc / "val", inner / "val")
    flat = read("imagenet", ilsvrc)
    by_name = {os.path.basename(path): name for path, name in rows(flat.splits["val"], flat.classes)}
    assert flat.splits["val"].root == inner
    for name, synset in by_name.items():
        (inner / "val" / synset).mkdir(exist_ok=True)
        os.rename(inner / "val" / name, inner / "val" / synset / name)
    foldered = read("imagenet", inner)
    assert foldered.classes == flat.classes
    found = rows(foldered.splits["val"], foldered.classes)
    assert {os.path.basename(path): name for path, name in found} == by_name


def no_labels(root):
    return "val is flat and ILSVRC2012_validation_ground_truth.txt, needed for its labels, is missing"


def only_truth(root):
    write_devkit(root)
    os.remove(root / "meta.mat")
    return r"val is flat and meta\.mat, needed for its labels, is missing"


def other_year(root):
    write_devkit(root, field="ILSVRC2014_ID")
    return r"meta\.mat: not the devkit's of 2012"


def not_matlab(root):
    write_devkit(root)
    (root / "meta.mat").write_bytes(b"\x00\x01")
    return r"meta\.mat: not the devkit's of 2012"


def cut_devkit(root):
    archive = pack_devkit(root)
    archive.write_bytes(archive.read_bytes()[:400])
    return r"devkit_t12\.tar\.gz: cut off or damaged"


def bad_id(root):
    write_devkit(root, truth=(490, 361, 5, 822))
    return r"ground_truth\.txt: line 3: '5' is no class id"


def inner_id(root):
    write_devkit(root, truth=(490, 361, 171, 1001))
    return r"ground_truth\.txt: line 4: '1001' is no class id"


def lost_picture(root):
    write_devkit(root)
    os.remove(root / "val/ILSVRC2012_val_00000002.JPEG")
    return r"ILSVRC2012_val_00000002\.JPEG: missing; .*ground_truth\.txt labels 4 pictures"


def short_truth(root):
    write_devkit(root, truth=(490, 361, 171))
    return r"ILSVRC2012_val_00000004\.JPEG: has no label in .*, which ends at 3"


def class_train_lacks(root):
    write_csv(root)
    for name in os.listdir(root / "train/n02105855"):
        os.remove(root / "train/n02105855" / name)
    (root / "train/n02105855").rmdir()
    return r"val_00000003\.JPEG: of class n02105855, which train lacks"


def class_val_lacks(root):
    write_csv(root)
    draw(root / "train/n01440764/n01440764_1.JPEG")
    return r"val: has no class 'n01440764' as train has"


def mixed_val(root):
    draw(root / "val/n01751748/ILSVRC2012_val_00000001.JPEG")
    return r"val: both class folders and 4 pictures beside them"


def no_synset(root):
    draw(root / "train/tench/1.JPEG")
    return r"train/tench: no synset"


def packed(root):
    (root / "train/n01440764.tar").write_bytes(b"")
    return r"n01440764\.tar: an archive not unpacked; .* holds ILSVRC2012_img_train\.tar .*read in place"


def no_train(root):
    os.rename(root / "train", root / "training")
    return r"neither a folder train nor ILSVRC2012_img_train\.tar"


def bad_csv(root):
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,snake\n")
    return r"LOC_val_solution\.csv: line 2"


ILSVRC_MISTAKES = [no_labels, only_truth, other_year, not_matlab, cut_devkit, bad_id, inner_id, lost_picture]
ILSVRC_MISTAKES += [short_truth, class_train_lacks, class_val_lacks, mixed_val, no_synset, packed, no_train]
ILSVRC_MISTAKES += [bad_csv]


@pytest.mark.parametrize("mistake", ILSVRC_MISTAKES)
def test_imagenet_mistakes_are_one_line_that_names_the_place(ilsvrc, mistake):
    message = mistake(ilsvrc)
    with pytest.raises(UserError, match=message) as raised:
        read("imagenet", ilsvrc)
    assert "\n" not in str(raised.value)
