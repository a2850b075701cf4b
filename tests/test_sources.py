"""Pictures in folders, one per class."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from pipeline.config import UserError
from pipeline.data.sources import Files, read
from pipeline.data.sources.imagefolder import PICTURES


def draw(path: Path) -> Path:
    """A small real picture, its format by the name's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    gray = int(hashlib.md5(path.name.encode()).hexdigest()[:2], 16)
    Image.new("RGB", (3, 2), (gray, 9, 99)).save(path, None if path.suffix != ".JPEG" else "JPEG")
    return path


def rows(split: Files, classes: list[str]) -> list[tuple[str, str]]:
    return [(path, classes[label]) for path, label in zip(split.paths, split.labels, strict=True)]


def test_unknown_source_names_the_nearest():
    with pytest.raises(UserError, match=r"'imagfolder': no such source; did you mean imagefolder\?"):
        read("imagfolder", ".")


@pytest.fixture
def pets(tmp_path):
    """Three classes in train and test, with everything beside that doesn't count."""
    for name in ("cat/1.jpg", "cat/10.png", "cat/2.JPG", "cat/b-c/y.webp", "cat/b/x.bmp", "cat/b/c/z.tif"):
        draw(tmp_path / "train" / name)
    for name in ("dog/é.ppm", "dog/sp ace.jpeg", "a cat/1.jpg"):
        draw(tmp_path / "train" / name)
    for name in ("cat/9.jpg", "dog/9.jpg", "a cat/9.jpg"):
        draw(tmp_path / "test" / name)
    (tmp_path / "train/stray.jpg").write_bytes(b"beside the class folders")
    (tmp_path / "train/cat/notes.txt").write_text("no picture")
    draw(tmp_path / "train/cat/.hidden.jpg")
    draw(tmp_path / "train/.git/x.jpg")
    return tmp_path


def test_imagefolder_reads_what_torchvision_reads(pets):
    os.remove(pets / "train/cat/.hidden.jpg")  # torchvision takes hidden files
    os.remove(pets / "train/.git/x.jpg")
    (pets / "train/.git").rmdir()
    source = read("imagefolder", pets)
    assert list(source.splits) == ["train", "test"]
    for name, split in source.splits.items():
        oracle = ImageFolder(str(pets / name))
        assert source.classes == oracle.classes
        assert [str(split.root / path) for path in split.paths] == [path for path, _ in oracle.samples]
        assert split.labels.tolist() == oracle.targets
        assert split.labels.dtype == np.int64


def test_imagefolder_ignores_hidden_and_stray_files(pets):
    source = read("imagefolder", pets)
    assert source.classes == ["a cat", "cat", "dog"]
    assert rows(source.splits["train"], source.classes) == [
        ("train/a cat/1.jpg", "a cat"),
        ("train/cat/1.jpg", "cat"),
        ("train/cat/10.png", "cat"),
        ("train/cat/2.JPG", "cat"),
        ("train/cat/b/x.bmp", "cat"),
        ("train/cat/b-c/y.webp", "cat"),
        ("train/cat/b/c/z.tif", "cat"),
        ("train/dog/sp ace.jpeg", "dog"),
        ("train/dog/é.ppm", "dog"),
    ]


def test_imagefolder_with_classes_at_the_root_is_one_train_split(pets):
    source = read("imagefolder", pets / "test")
    assert list(source.splits) == ["train"]
    assert source.splits["train"].paths == ["a cat/9.jpg", "cat/9.jpg", "dog/9.jpg"]


def test_imagefolder_order_does_not_depend_on_the_order_of_writing(tmp_path):
    names = [f"{kind}/{number}{ending}" for kind in "abc" for number in range(4) for ending in PICTURES]
    for name in names:
        draw(tmp_path / "one" / name)
    for name in sorted(names, key=lambda name: hashlib.md5(name.encode()).digest()):
        draw(tmp_path / "two" / name)
    one, two = (read("imagefolder", tmp_path / name).splits["train"] for name in ("one", "two"))
    assert one.paths == two.paths
    assert len(one) == len(names)


def test_imagefolder_takes_a_link_within_the_root_and_none_that_leads_out(pets):
    os.symlink(pets / "train/cat/1.jpg", pets / "train/dog/link.jpg")
    assert "train/dog/link.jpg" in read("imagefolder", pets).splits["train"].paths
    secret = draw(pets.parent / "outside.jpg")
    os.symlink(secret, pets / "train/dog/out.jpg")
    with pytest.raises(
        UserError, match=r"train/dog/out\.jpg: a link out of .*outside\.jpg; copy the picture"
    ):
        read("imagefolder", pets)


def nothing(root):
    (root / "train/bird").mkdir()
    draw(root / "test/bird/1.jpg")
    return r"train/bird: a class without pictures \(\.jpg"


def only_text(root):
    (root / "train/bird").mkdir()
    draw(root / "test/bird/1.jpg")
    (root / "train/bird/x.txt").write_text("x")
    return r"train/bird: a class without pictures"


def odd_in_test(root):
    draw(root / "test/wolf/1.jpg")
    return r"test/wolf: train has no class 'wolf'"


def lacking_in_test(root):
    os.remove(root / "test/dog/9.jpg")
    (root / "test/dog").rmdir()
    return r"test: has no class 'dog' as train has"


def misnamed(root):
    draw(root / "validation/cat/1.jpg")
    return r"validation: not a split's name; call the folder val"


def without_train(root):
    os.rename(root / "train", root / ".train")
    return r"has test but no train"


def capital(root):
    os.rename(root / "train", root / "Train")
    os.rename(root / "test", root / "Testing")
    return r"Testing, Train look like splits; call them train, val, test"


def flat(root):
    draw(root / "val/1.jpg")
    return r"val: holds 1 pictures but no class folders"


def linked_folder(root):
    os.symlink(root / "train/dog", root / "train/wolf")
    return r"train/wolf: a link to a folder; .* not followed"


def looping_folder(root):
    os.symlink(root / "train", root / "train/dog/again")
    return r"train/dog/again: a link to a folder"


def dangling(root):
    os.symlink(root / "gone.jpg", root / "train/dog/x.jpg")
    return r"train/dog/x\.jpg: a link that leads to no file"


def not_utf8(root):
    open(os.fsencode(root / "train/dog") + b"/\xff.jpg", "w").close()
    return r"\\xff\.jpg': not a UTF-8 name"


MISTAKES = [nothing, only_text, odd_in_test, lacking_in_test, misnamed, without_train, capital, flat]
MISTAKES += [linked_folder, looping_folder, dangling, not_utf8]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_imagefolder_mistakes_are_one_line_that_names_the_place(pets, mistake):
    message = mistake(pets)
    with pytest.raises(UserError, match=message) as raised:
        read("imagefolder", pets)
    assert "\n" not in str(raised.value)


def test_no_folder_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="gone: no such folder"):
        read("imagefolder", tmp_path / "gone")
    with pytest.raises(UserError, match="name the folder that holds the pictures"):
        read("imagenet")
    with pytest.raises(UserError, match="holds no class folders"):
        read("imagefolder", tmp_path)
