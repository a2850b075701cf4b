"""The five collections of the transfer table: what comes out of their published layouts."""

import hashlib
import os
import random
from pathlib import Path

import downstream_small as small
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sources import draw, rows
from torchvision.datasets import Caltech101, FGVCAircraft

from pipeline.data.sources import Options, Source, read


def content(source: Source) -> tuple:
    """All of a source but where it lies."""
    splits = {
        name: (split.paths, split.labels.tolist(), split.banner) for name, split in source.splits.items()
    }
    return source.name, source.classes, splits


def located(source: Source) -> bool:
    return all((split.root / path).is_file() for split in source.splits.values() for path in split.paths)


HOMES = {
    "caltech101": ["101_ObjectCategories"],
    "voc2007": ["VOCdevkit/VOC2007", "VOCdevkit"],
    "cub200": ["CUB_200_2011"],
    "aircraft": ["fgvc-aircraft-2013b/data", "fgvc-aircraft-2013b"],
    "cars": ["stanford_cars"],
}


@pytest.mark.parametrize("name", HOMES)
def test_found_from_the_folder_that_holds_it_and_from_within(tmp_path, name):
    small.WRITE[name](tmp_path)
    source = read(name, tmp_path)
    assert located(source)
    for home in HOMES[name]:
        assert content(read(name, tmp_path / home)) == content(source)


def test_caltech_and_cars_are_found_in_the_wrappers_that_others_put_around(tmp_path):
    bare = content(read("caltech101", small.caltech101(tmp_path / "bare")))
    for wrapper in ("caltech101", "caltech-101"):
        small.caltech101(tmp_path / wrapper / wrapper)
        assert content(read("caltech101", tmp_path / wrapper)) == bare
    home = small.cars(tmp_path) / "stanford_cars"
    plain = content(read("cars", tmp_path))
    for split in ("train", "test"):  # Kaggle's copy
        os.rename(home / f"cars_{split}", home / "moved")
        (home / f"cars_{split}").mkdir()
        os.rename(home / "moved", home / f"cars_{split}/cars_{split}")
    os.rename(home / "cars_test_annos_withlabels.mat", home / "devkit/cars_test_annos_withlabels.mat")
    assert content(read("cars", tmp_path)) == plain
    assert located(read("cars", tmp_path))


@pytest.fixture(scope="module")
def caltech(tmp_path_factory):
    return small.caltech101(tmp_path_factory.mktemp("caltech"))


@pytest.mark.parametrize(("background", "name"), [(True, "caltech101-102"), (False, "caltech101-101")])
def test_caltech_says_whether_the_background_is_a_class(caltech, capsys, background, name):
    source = read("caltech101", caltech, Options(background=background))
    assert source.name == name
    assert source.classes == ["BACKGROUND_Google", "Faces", "accordion"][not background :]
    said = capsys.readouterr().err
    assert f"Caltech-101 {'with' if background else 'without'} BACKGROUND_Google" in said
    assert f"train {30 * len(source.classes)}, test {8 if background else 5}" in said


@settings(max_examples=10)
@given(st.integers(0, 2**31))
def test_caltech_draws_thirty_a_class_without_replacement_and_tests_on_all_the_rest(caltech, seed):
    source = read("caltech101", caltech, Options(seed=seed))
    train, test = (source.splits[name] for name in ("train", "test"))
    assert np.bincount(train.labels).tolist() == [30, 30, 30]
    assert len(set(train.paths)) == 90
    home = caltech / "101_ObjectCategories"
    every = {str(path.relative_to(home)) for path in home.glob("*/*.jpg")}
    assert set(train.paths) | set(test.paths) == every
    assert len(train) + len(test) == len(every)
    for split in (train, test):
        assert all(path.startswith(f"{name}/") for path, name in rows(split, source.classes))


def test_caltech_draw_depends_on_seed_and_class_alone(caltech, tmp_path):
    home = caltech / "101_ObjectCategories"
    names = sorted((path.relative_to(home) for path in home.glob("*/*.jpg")), reverse=True)
    for name in sorted(names, key=lambda name: hashlib.md5(bytes(name)).digest()):  # written in another order
        draw(tmp_path / "101_ObjectCategories" / name)
    for stray in ("accordion/Thumbs.db", "Faces/.DS_Store", "BACKGROUND_Google/tmp", ".DS_Store", "readme"):
        (tmp_path / "101_ObjectCategories" / stray).write_bytes(b"stray")
    draw(tmp_path / "101_ObjectCategories/accordion/copy of image_0001.jpg")
    assert content(read("caltech101", tmp_path)) == content(read("caltech101", caltech))
    splits = read("caltech101", caltech).splits
    assert splits["train"].paths != read("caltech101", caltech, Options(seed=1)).splits["train"].paths
    fewer = read("caltech101", caltech, Options(background=False)).splits["train"].paths
    assert fewer == [path for path in splits["train"].paths if "BACKGROUND" not in path]


def test_caltech_without_background_is_torchvisions(tmp_path):
    small.caltech101(tmp_path / "caltech101")
    oracle = Caltech101(str(tmp_path))
    source = read("caltech101", tmp_path, Options(background=False))
    ours = sorted(row for split in source.splits.values() for row in rows(split, source.classes))
    folders = [oracle.categories[label] for label in oracle.y]
    named = [f"{name}/image_{n:04d}.jpg" for name, n in zip(folders, oracle.index, strict=True)]
    assert ours == sorted(zip(named, folders, strict=True))
    assert source.classes == oracle.categories


def test_voc_keeps_shown_hard_and_not_shown_apart(tmp_path):
    source = read("voc2007", small.voc2007(tmp_path))
    assert source.multilabel
    assert (len(source.classes), source.classes[0], source.classes[-1]) == (20, "aeroplane", "tvmonitor")
    assert source.classes == sorted(source.classes)
    assert list(source.splits) == ["train", "val", "test"]
    for name, split in source.splits.items():
        assert split.labels.dtype == np.int8
        assert split.paths == [f"JPEGImages/{number}.jpg" for number in sorted(small.VOC[name])]
        for path, labels in zip(split.paths, split.labels, strict=True):
            plain, hard = small.VOC[name][Path(path).stem]
            expected = [1 if name in plain else 0 if name in hard else -1 for name in source.classes]
            assert labels.tolist() == expected


def test_voc_without_the_test_tar_has_no_test_and_says_so(tmp_path, capsys):
    source = read("voc2007", small.voc2007(tmp_path, ("train", "val")))
    assert list(source.splits) == ["train", "val"]
    said = capsys.readouterr().err
    assert "has no *_test.txt: no split test; VOCtest_06-Nov-2007.tar is at http" in said
    assert "the whole of it has train 2,501, val 2,510, test 4,952" in said


def test_voc_splits_on_any_white_space_and_joins_by_id(tmp_path):
    small.voc2007(tmp_path)
    expected = content(read("voc2007", tmp_path))
    lists = tmp_path / "VOCdevkit/VOC2007/ImageSets/Main"
    (lists / "horse_train.txt").write_bytes(b"000023\t-1\r\n000012    -1  \r\n\r\n000017 +1")
    (lists / "aeroplane_train.txt").write_text("000023 -1\n000012 -1\n000017 -1\n")
    (lists / "trainval.txt").unlink()
    assert content(read("voc2007", tmp_path)) == expected


def test_voc_keeps_a_picture_that_shows_no_class(tmp_path):
    small.voc2007(tmp_path)
    (tmp_path / "VOCdevkit/VOC2007/ImageSets/Main/car_train.txt").write_text(
        "000012 -1\n000017 -1\n000023 -1\n"
    )
    assert read("voc2007", tmp_path).splits["train"].labels[0].tolist() == [-1] * 20


def test_cub_is_joined_by_id_whatever_the_order_of_lines(tmp_path):
    source = read("cub200", small.cub200(tmp_path))
    assert source.classes == small.BIRDS
    for name, flag in (("train", 1), ("test", 0)):
        expected = [(f"_{n:04d}_", small.BIRDS[bird - 1]) for n, (bird, f) in small.CUB.items() if f == flag]
        for (path, bird), (part, named) in zip(
            rows(source.splits[name], source.classes), expected, strict=True
        ):
            assert part in path
            assert bird == named
            assert path.startswith(f"images/{named}/")
    for seed in range(5):
        for list_ in ("images", "image_class_labels", "train_test_split", "classes"):
            path = tmp_path / f"CUB_200_2011/{list_}.txt"
            lines = path.read_text().splitlines()
            random.Random(f"{seed}{list_}").shuffle(lines)
            path.write_text("\n".join(lines))
        assert content(read("cub200", tmp_path)) == content(source)


def test_aircraft_is_torchvisions_less_the_banner(tmp_path):
    source = read("aircraft", small.aircraft(tmp_path))
    assert source.classes == small.VARIANTS
    assert list(source.splits) == ["train", "val", "test"]
    for name, split in source.splits.items():
        oracle = FGVCAircraft(str(tmp_path), name, "variant")
        assert source.classes == oracle.classes
        assert [str(split.root / path) for path in split.paths] == oracle._image_files
        assert split.labels.tolist() == oracle._labels
        assert split.banner == 20
        expected = [(f"images/{picture}.jpg", variant) for picture, variant in small.AIRCRAFT[name].items()]
        assert rows(split, source.classes) == expected
