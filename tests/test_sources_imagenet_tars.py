"""ImageNet in its archives as published: the same pictures in the same order as in folders, in place."""

import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from test_sources import draw
from test_sources_imagenet import SORTED, pack_devkit, write_csv, write_ilsvrc
from test_sources_tars import add

from pipeline.config import UserError
from pipeline.data.sources import Files, carve, read, select_classes

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


@pytest.fixture
def folders(tmp_path):
    """A small ILSVRC2012 in folders, with everything that may lie about in a class."""
    root = write_ilsvrc(tmp_path / "folders")
    for name in ("a/z.JPEG", "a/b/y.JPEG", "a-b/x.jpg", "w.png"):
        draw(root / "train/n02105855" / name)
    (root / "train/n02105855/notes.txt").write_text("no picture")
    (root / "train/n02105855/.hidden.JPEG").write_bytes(b"no picture")
    (root / "val/notes.txt").write_text("no picture")
    (root / "train/notes.txt").write_text("beside the classes")
    write_csv(root)
    return root


def pack(folder: Path, tar: Path, prefix="") -> Path:
    """All of a folder's files, the last first."""
    with tarfile.open(tar, "w:", format=tarfile.GNU_FORMAT) as out:
        for path in sorted(folder.rglob("*"), reverse=True):
            out.add(path, prefix + str(path.relative_to(folder)), recursive=False)
    return tar


def pack_train(folder: Path, tar: Path) -> Path:
    """A tar of a tar per class, as published; the last first."""
    tar.parent.mkdir(exist_ok=True)
    with tarfile.open(tar, "w:") as out:
        for path in sorted(folder.iterdir(), reverse=True):
            if path.is_dir():
                inner = pack(path, tar.with_name("inner"))
                out.add(inner, f"{path.name}.tar")
                os.remove(inner)
            else:
                out.add(path, path.name)
    return tar


@pytest.fixture
def tars(folders):
    """The same in its archives."""
    root = folders.with_name("tars")
    pack_train(folders / "train", root / TRAIN)
    pack(folders / "val", root / VAL, prefix="./")
    write_csv(root)
    return root


def read_all(split: Files) -> list[bytes]:
    """The content of each file."""
    if split.inside is None:
        return [(split.root / path).read_bytes() for path in split.paths]
    whole = [(split.root / name).read_bytes() for name in split.inside.archives]
    places = zip(split.inside.number, split.inside.offset, split.inside.size, strict=True)
    return [whole[number][offset : offset + size] for number, offset, size in places]


def same(one, two) -> None:
    assert one.classes == two.classes
    assert list(one.splits) == list(two.splits)
    for name, split in one.splits.items():
        assert split.paths == two.splits[name].paths
        assert np.array_equal(split.labels, two.splits[name].labels)
        assert read_all(split) == read_all(two.splits[name])


def test_archives_and_folders_give_the_same_rows_in_the_same_order(folders, tars):
    from_folders, from_tars = read("imagenet", folders), read("imagenet", tars)
    same(from_folders, from_tars)
    assert from_tars.classes == SORTED
    assert from_tars.splits["train"].paths[2:8] == [
        "train/n02105855/n02105855_10.JPEG",
        "train/n02105855/n02105855_7.JPEG",
        "train/n02105855/w.png",
        "train/n02105855/a/z.JPEG",
        "train/n02105855/a-b/x.jpg",
        "train/n02105855/a/b/y.JPEG",
    ]
    for name, archive in (("train", TRAIN), ("val", VAL)):
        assert from_folders.splits[name].inside is None
        assert from_tars.splits[name].inside.archives == [archive]
    assert sorted(os.listdir(tars)) == [TRAIN, VAL, "LOC_val_solution.csv"]  # nothing was unpacked


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_split_may_be_a_folder_and_the_other_an_archive(folders, tars, split):
    os.rename(folders / split, tars / split)  # beside its archive, and before it
    mixed = read("imagenet", tars)
    assert [name for name, found in mixed.splits.items() if found.inside is None] == [split]
    other = "val" if split == "train" else "train"
    os.rename(folders / other, tars / other)
    same(mixed, read("imagenet", tars))


def test_train_alone_is_enough_and_the_devkit_labels_an_archive_too(folders, tars):
    os.remove(tars / "LOC_val_solution.csv")
    pack_devkit(tars)
    same(read("imagenet", folders), read("imagenet", tars))
    os.remove(tars / VAL)
    assert list(read("imagenet", tars).splits) == ["train"]


def test_parts_of_it_are_the_same_parts(folders, tars):
    parts = []
    for root in (folders, tars):
        source = read("imagenet", root)
        source.splits.pop("val")
        parts.append(select_classes(carve(source, 1, seed=3), ["n02105855", "n01751748"]))
    same(*parts)


def rewritten(tar: Path, change) -> None:
    """The archive again, its members (name, content) changed."""
    with tarfile.open(tar) as old:
        members = [(m.name, old.extractfile(m).read()) for m in old if m.isreg()]
    with tarfile.open(tar, "w:") as new:
        for name, content in change(members):
            add(new, name, content)


def the_tar_itself(root):
    return root / TRAIN, rf"{TRAIN}: a file; name the folder that holds it"


def not_nested(root):
    with tarfile.open(root / TRAIN, "w:") as tar:
        add(tar, "n01440764/n01440764_10.JPEG", b"x")
    return root, rf"{TRAIN}: holds no n<8 digits>\.tar; .*unpack any other into .*train"


def no_synset(root):
    rewritten(root / TRAIN, lambda members: [("dogs.tar", content) for _, content in members[-1:]])
    return root, rf"{TRAIN}: dogs\.tar: no synset"


def no_pictures(root):
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w:").close()
    rewritten(root / TRAIN, lambda members: [*members, ("n01440764.tar", empty.getvalue())])
    return root, rf"{TRAIN}: n01440764\.tar: a class without pictures"


def cut_train(root):
    os.truncate(root / TRAIN, (root / TRAIN).stat().st_size // 2)
    return root, rf"{TRAIN}: cut off or damaged"


def cut_class(root):
    rewritten(root / TRAIN, lambda members: [(name, content[:1500]) for name, content in members])
    return root, rf"{TRAIN}: n09193705\.tar: cut off or damaged"


def val_in_folders(root):
    rewritten(root / VAL, lambda members: [(f"n01751748/{name}", content) for name, content in members])
    return root, rf"{VAL}: holds the folder n01751748; .*unpack this one into .*val"


def empty_val(root):
    rewritten(root / VAL, lambda members: [])
    return root, rf"{VAL}: holds no pictures"


def other_names(root):
    rewritten(root / VAL, lambda members: [(f"x{name[2:]}", content) for name, content in members])
    return root, rf"{VAL}/xILSVRC2012_val_00000001\.JPEG: a flat val needs the names"


def lost_picture(root):
    rewritten(root / VAL, lambda members: [m for m in members if "00000002" not in m[0]])
    return root, rf"{VAL}/ILSVRC2012_val_00000002\.JPEG: missing; .*labels 4 pictures"


def class_train_lacks(root):
    rewritten(root / TRAIN, lambda members: [m for m in members if m[0] != "n02105855.tar"])
    return root, rf"{VAL}/ILSVRC2012_val_00000003\.JPEG: of class n02105855, which train lacks"


def no_labels(root):
    os.remove(root / "LOC_val_solution.csv")
    return root, r"val is flat and ILSVRC2012_validation_ground_truth\.txt, needed for its labels"


def only_val(root):
    os.remove(root / TRAIN)
    return root, rf"neither a folder train nor {TRAIN}"


def empty_folder(root):
    (root / "train").mkdir()
    return root, "train: holds no class folders"


def unpacked_once(root):
    shutil.unpack_archive(root / TRAIN, root / "train", "tar")
    return root, rf"train/n\d{{8}}\.tar: an archive not unpacked; .* {TRAIN} .*: it is read in place"


MISTAKES = [
    the_tar_itself,
    not_nested,
    no_synset,
    no_pictures,
    cut_train,
    cut_class,
    val_in_folders,
    empty_val,
]
MISTAKES += [other_names, lost_picture, class_train_lacks, no_labels, only_val, empty_folder, unpacked_once]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_that_names_the_archive(tars, mistake):
    place, message = mistake(tars)
    with pytest.raises(UserError, match=message) as raised:
        read("imagenet", place)
    assert "\n" not in str(raised.value)
