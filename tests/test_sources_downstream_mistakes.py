"""What is wrong with a downloaded collection is one line that names the file, and where to get it."""

import os
import shutil

import downstream_small as small
import pytest

from pipeline.config import UserError
from pipeline.data.sources import Options, read

LISTS = "VOCdevkit/VOC2007/ImageSets/Main"
CUB = "CUB_200_2011"
AIR = "fgvc-aircraft-2013b/data"


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("caltech101", r"101_ObjectCategories/\*/image_0001\.jpg or 101_Object.*10\.22002/D1\.20086"),
        (
            "voc2007",
            r"VOCdevkit/VOC2007/ImageSets/Main/\*_train\.txt or VOCtrainval_06-Nov-2007\.tar.*oxford|robots",
        ),
        ("cub200", r"CUB_200_2011/images\.txt or CUB_200_2011\.tgz.*10\.22002/D1\.20098"),
        ("aircraft", r"fgvc-aircraft-2013b/data/variants\.txt or fgvc-aircraft-2013b\.tar\.gz.*robots\.ox"),
        ("cars", r"stanford_cars/devkit/cars_meta\.mat or car_devkit\.tgz.*vision/issues/7545"),
    ],
)
def test_what_is_missing_and_where_it_is(tmp_path, name, message):
    for root, start in (
        (None, "name the folder"),
        (tmp_path, "holds no"),
        (tmp_path / "gone", "no such folder"),
    ):
        with pytest.raises(UserError, match=f"{start}.*{message}") as raised:
            read(name, root)
        assert "\n" not in str(raised.value)
    (tmp_path / "some.tgz").write_bytes(b"")
    with pytest.raises(UserError, match=r"some\.tgz: none of .*'s archives, which are "):
        read(name, tmp_path / "some.tgz")


def few_pictures(root):
    (root / "101_ObjectCategories/accordion/image_0007.jpg").unlink()
    return r"accordion: 30 pictures .*; 30 for training and one for the test"


def empty_class(root):
    (root / "101_ObjectCategories/yin_yang").mkdir()
    return r"yin_yang: 0 pictures"


def no_background(root):
    shutil.rmtree(root / "101_ObjectCategories/BACKGROUND_Google")
    return r"no folder BACKGROUND_Google, which counts as a class"


def no_class_list(root):
    (root / LISTS / "sheep_val.txt").unlink()
    return r"sheep_val\.txt: missing"


def no_test_class_list(root):
    (root / LISTS / "aeroplane_test.txt").unlink()
    return r"aeroplane_test\.txt: missing"


def another_id(root):
    change(root / LISTS / "cow_train.txt", "000017", "000018")
    return r"cow_train\.txt: lacks '000017', which aeroplane_train\.txt lists"


def more_ids(root):
    change(root / LISTS / "cow_train.txt", "000017", "000018 -1\n000017")
    return r"cow_train\.txt: lists '000018', which aeroplane_train\.txt lacks"


def odd_flag(root):
    change(root / LISTS / "horse_train.txt", "000017  1", "000017  2")
    return r"horse_train\.txt: picture 000017: '2' is not 1, -1 or 0"


def no_flag(root):
    change(root / LISTS / "horse_train.txt", "000017  1", "000017")
    return r"horse_train\.txt: the line '000017' needs two words"


def twice(root):
    change(root / LISTS / "horse_train.txt", "000023", "000017")
    return r"horse_train\.txt: '000017' is listed twice"


def no_union(root):
    change(root / LISTS / "trainval.txt", "000007\n", "")
    return r"trainval\.txt: lacks '000007', which aeroplane_train\.txt or aeroplane_val\.txt lists"


def leak(root):
    for path in (root / LISTS).glob("*_test.txt"):
        change(path, "000001", "000012")
    return r"000012\.jpg: listed both in train and in test"


def lost_pictures(root):
    for number in ("000005", "000007"):
        (root / f"VOCdevkit/VOC2007/JPEGImages/{number}.jpg").unlink()
    return r"JPEGImages/000005\.jpg: missing, 2 in all of the 2 pictures that .*aeroplane_val\.txt lists"


def way_out(root):
    for path in (root / LISTS).glob("*_train.txt"):
        change(path, "000012", "../../../../secret")
    return r"aeroplane_train\.txt: lists 'JPEGImages/\.\./\.\./.*', which is no picture's name"


def empty_list(root):
    (root / LISTS / "bus_val.txt").write_text(" \n\n")
    return r"bus_val\.txt: empty"


def binary_list(root):
    (root / LISTS / "bus_val.txt").write_bytes(b"\xff\xfe0\x000\x00")
    return r"bus_val\.txt: no text"


def folder_for_list(root):
    (root / LISTS / "bus_val.txt").unlink()
    (root / LISTS / "bus_val.txt").mkdir()
    return r"bus_val\.txt: cannot be read: Is a directory"


def label_lost(root):
    change(root / CUB / "image_class_labels.txt", "9 3\n", "")
    return r"image_class_labels\.txt: lacks '9', which images\.txt lists"


def split_of_nothing(root):
    change(root / CUB / "train_test_split.txt", "9 1\n", "9 1\n12 1\n")
    return r"train_test_split\.txt: lists '12', which images\.txt lacks"


def class_zero(root):
    change(root / CUB / "image_class_labels.txt", "9 3", "9 0")
    return r"image_class_labels\.txt: picture 9: '0' is not a class from 1 to 3"


def shifted_labels(root):
    change(root / CUB / "image_class_labels.txt", "9 3", "9 2")
    return r"image_class_labels\.txt: picture 9 is '002\.Laysan_Albatross', but images\.txt has it in '003"


def odd_split(root):
    change(root / CUB / "train_test_split.txt", "9 1", "9 2")
    return r"train_test_split\.txt: picture 9: '2' is not 1 or 0"


def no_test(root):
    change(root / CUB / "train_test_split.txt", " 0", " 1")
    return r"images\.txt: names no picture of a split"


def class_ids(root):
    change(root / CUB / "classes.txt", "3 003", "4 003")
    return r"classes\.txt: the ids are not 1 to 3"


def odd_id(root):
    for name in ("images", "image_class_labels", "train_test_split"):
        change(root / CUB / f"{name}.txt", "9 ", "IX ")
    return r"image_class_labels\.txt: 'IX' is no picture's id"


def absolute(root):
    change(root / CUB / "images.txt", "9 003.Sooty", "9 /003.Sooty")
    return r"picture 9 is '003.Sooty_Albatross', but images\.txt has it in '/003"


def upwards(root):
    change(root / CUB / "images.txt", "9 003.Sooty_Albatross/", "9 003.Sooty_Albatross/../../../")
    return r"images\.txt: lists 'images/003\.Sooty_Albatross/\.\./.*', which is no picture's name"


def picture_twice(root):
    change(root / CUB / "images.txt", "_0009_", "_0011_")
    return r"images\.txt: lists images/003\.Sooty_Albatross/Sooty_Albatross_0011_796\.jpg twice"


def class_folder_lost(root):
    shutil.rmtree(root / CUB / "images/002.Laysan_Albatross")
    return r"images/002\.Laysan_Albatross/.*: missing, 1 in all of the 5 pictures"


def unknown_variant(root):
    change(root / AIR / "images_variant_val.txt", "BAE 146-200", "BAE 146-20")
    return r"val\.txt: picture 0056978: 'BAE 146-20' is not in variants\.txt; did you mean BAE 146-200\?"


def variant_twice(root):
    change(root / AIR / "variants.txt", "Yak-42", "F/A-18")
    return r"variants\.txt: names a variant twice"


def aircraft_union(root):
    change(root / AIR / "images_variant_trainval.txt", "1340192 Yak-42\n", "")
    return r"trainval\.txt: lacks '1340192', which images_variant_train\.txt or images_variant_val\.txt lists"


def aircraft_disagree(root):
    change(root / AIR / "images_variant_trainval.txt", "1340192 Yak-42", "1340192 707-320")
    return r"trainval\.txt: picture 1340192 is '707-320', 'Yak-42' in images_variant_train\.txt or"


def aircraft_leak(root):
    change(root / AIR / "images_variant_test.txt", "0074171", "0481847")
    return r"0481847\.jpg: listed both in train and in test"


def aircraft_list(root):
    (root / AIR / "images_variant_val.txt").unlink()
    return r"images_variant_val\.txt: missing"


def dangling(root):
    path = root / AIR / "images/0481847.jpg"
    path.unlink()
    os.symlink(root / "gone.jpg", path)
    return r"0481847\.jpg: missing, 1 in all of the 3"


CALTECH = [few_pictures, empty_class, no_background]
VOC = [no_class_list, no_test_class_list, another_id, more_ids, odd_flag, no_flag, twice, no_union, leak]
VOC += [lost_pictures, way_out, empty_list, binary_list, folder_for_list]
BIRDS = [label_lost, split_of_nothing, class_zero, shifted_labels, odd_split, no_test, class_ids, odd_id]
BIRDS += [absolute, upwards, picture_twice, class_folder_lost]
PLANES = [unknown_variant, variant_twice, aircraft_union, aircraft_disagree, aircraft_leak, aircraft_list]
PLANES += [dangling]
MISTAKES = {"caltech101": CALTECH, "voc2007": VOC, "cub200": BIRDS, "aircraft": PLANES}


@pytest.mark.parametrize(
    ("name", "mistake"), [(name, mistake) for name, mistakes in MISTAKES.items() for mistake in mistakes]
)
def test_a_mistake_is_one_line_that_names_the_place(tmp_path, name, mistake):
    message = mistake(small.WRITE[name](tmp_path))
    with pytest.raises(UserError, match=message) as raised:
        read(name, tmp_path)
    assert "\n" not in str(raised.value)


def test_without_background_it_need_not_be_there(tmp_path):
    no_background(small.caltech101(tmp_path))
    assert read("caltech101", tmp_path, Options(background=False)).classes == ["Faces", "accordion"]
