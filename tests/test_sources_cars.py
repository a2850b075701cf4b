"""Stanford Cars: annotations in MATLAB files, labels that count from 1, test labels in their own file."""

import shutil

import downstream_small as small
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from torchvision.datasets import StanfordCars

from pipeline.config import UserError
from pipeline.data.sources import Source, read


def test_cars_is_torchvisions(tmp_path):
    source = read("cars", small.cars(tmp_path))
    assert list(source.splits) == ["train", "test"]
    for name, split in source.splits.items():
        oracle = StanfordCars(str(tmp_path), name)
        assert source.classes == oracle.classes == small.CAR_NAMES
        ours = [
            (str(split.root / path), label) for path, label in zip(split.paths, split.labels, strict=True)
        ]
        assert ours == oracle._samples
        assert (split.labels + 1).tolist() == small.CARS[name]


def test_cars_of_one_picture_a_split(tmp_path):
    home = small.cars(tmp_path) / "stanford_cars"
    small.annotations(home / "cars_test_annos_withlabels.mat", [2])
    assert read("cars", tmp_path).splits["test"].labels.tolist() == [1]


def no_labels(root):
    (root / "stanford_cars/cars_test_annos_withlabels.mat").unlink()
    return r"cars_test_annos_withlabels\.mat is missing .*has no labels\); put it there; it is at https.*7545"


def unlabelled(root):
    small.annotations(root / "stanford_cars/cars_test_annos_withlabels.mat", [1, 2, 3], labelled=False)
    return r"withlabels\.mat: no annotations with fname and class"


def class_beyond(root):
    small.annotations(root / "stanford_cars/devkit/cars_train_annos.mat", [3, 1, 4])
    return r"cars_train_annos\.mat: 00003\.jpg: class 4 is not from 1 to 3"


def from_zero(root):
    small.annotations(root / "stanford_cars/devkit/cars_train_annos.mat", [2, 0, 1])
    return r"cars_train_annos\.mat: 00002\.jpg: class 0 is not from 1 to 3"


def no_struct(root):
    savemat(root / "stanford_cars/devkit/cars_train_annos.mat", {"annotations": np.arange(5)})
    return r"cars_train_annos\.mat: no annotations with fname and class"


def other_variable(root):
    savemat(root / "stanford_cars/devkit/cars_meta.mat", {"names": np.arange(5)})
    return r"cars_meta\.mat: cut off or damaged"


def no_names(root):
    savemat(root / "stanford_cars/devkit/cars_meta.mat", {"class_names": np.zeros((1, 0), object)})
    return r"cars_meta\.mat: class_names is empty"


def no_train_annos(root):
    (root / "stanford_cars/devkit/cars_train_annos.mat").unlink()
    return r"cars_train_annos\.mat: missing"


def no_cars(root):
    shutil.rmtree(root / "stanford_cars/cars_test")
    return r"holds no stanford_cars/cars_test/\*\.jpg or cars_test\.tgz"


def one_car_less(root):
    (root / "stanford_cars/cars_test/00002.jpg").unlink()
    return r"cars_test/00002\.jpg: missing, 1 in all of the 3 pictures that .*withlabels\.mat lists"


MISTAKES = [no_labels, unlabelled, class_beyond, from_zero, no_struct, other_variable, no_names]
MISTAKES += [no_train_annos, no_cars, one_car_less]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_place(tmp_path, mistake):
    message = mistake(small.cars(tmp_path))
    with pytest.raises(UserError, match=message) as raised:
        read("cars", tmp_path)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def some_cars(tmp_path_factory):
    return small.cars(tmp_path_factory.mktemp("cars"))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_annotations_are_a_users_mistake_or_do_no_harm(some_cars, data):
    name = data.draw(st.sampled_from(["cars_train_annos.mat", "cars_meta.mat"]))
    path = some_cars / "stanford_cars/devkit" / name
    whole = path.read_bytes()
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        assert isinstance(read("cars", some_cars), Source)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
    finally:
        path.write_bytes(whole)
