"""Choosing classes and carving a validation split: what must hold for every source."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import UserError
from pipeline.data.sources import Files, Pixels, Source, carve, select_classes

CLASSES = ["ant", "bee", "cow", "dog", "eel"]


def as_files(labels: list[int]) -> Files:
    return Files(Path("root"), [f"{row}.png" for row in range(len(labels))], np.array(labels, np.int64))


def as_pixels(labels: list[int]) -> Pixels:
    """Pictures that carry their row number in their pixels."""
    numbers = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    return Pixels(np.broadcast_to(numbers, (len(labels), 2, 2, 3)).copy(), np.array(labels, np.int64))


def tags(split: Files | Pixels, classes: list[str]) -> list[tuple[int, str]]:
    """(row number in the original, class name) of each row."""
    if isinstance(split, Files):
        numbers = [int(path.removesuffix(".png")) for path in split.paths]
    else:
        numbers = split.pixels[:, 0, 0, 0].tolist()
    return [(number, classes[label]) for number, label in zip(numbers, split.labels, strict=True)]


def tagged(source: Source) -> dict[str, list[tuple[int, str]]]:
    return {name: tags(split, source.classes) for name, split in source.splits.items()}


@st.composite
def sources(draw) -> Source:
    """Train with at least three pictures of every class, in any order, and a test split."""
    more = draw(st.lists(st.integers(0, 4), max_size=60))
    labels = draw(st.permutations([0, 1, 2, 3, 4] * 3 + more))
    make = draw(st.sampled_from([as_files, as_pixels]))
    test = draw(st.lists(st.integers(0, 4), max_size=10))
    return Source("zoo", CLASSES, {"train": make(labels), "test": make(test)})


seeds = st.integers(0, 2**63 - 1)
chosen = st.permutations(CLASSES).flatmap(lambda names: st.integers(1, 5).map(lambda k: list(names[:k])))


@given(sources(), chosen)
def test_selected_classes_keep_their_pictures_and_the_order(source, names):
    before, selected = tagged(source), select_classes(source, names)
    assert selected.classes == names
    assert list(selected.splits) == list(source.splits)
    for name, after in tagged(selected).items():
        assert after == [row for row in before[name] if row[1] in names]


@given(sources(), seeds, st.sampled_from([1, 2, 0.2, 0.5]))
def test_carving_moves_the_same_share_of_every_class_and_loses_nothing(source, seed, amount):
    before, carved = tagged(source), carve(source, amount, seed)
    after = tagged(carved)
    assert list(carved.splits) == ["train", "val", "test"]
    assert after["test"] == before["test"]
    assert sorted(after["train"] + after["val"]) == sorted(before["train"])
    for part in ("train", "val"):
        assert after[part] == [row for row in before["train"] if row in set(after[part])]
    for name in CLASSES:
        total = sum(row[1] == name for row in before["train"])
        share = amount if isinstance(amount, int) else int(amount * total + 0.5)
        assert sum(row[1] == name for row in after["val"]) == share


@given(sources(), seeds, chosen)
def test_carving_and_selecting_may_come_in_either_order(source, seed, names):
    one = tagged(select_classes(carve(source, 1, seed), names))
    two = tagged(carve(select_classes(source, names), 1, seed))
    assert one == two


def test_carving_is_the_same_on_every_machine_and_another_with_another_seed():
    source = Source("zoo", CLASSES, {"train": as_pixels([0, 1, 2, 3, 4] * 20)})
    val = [tags(carve(source, 3, seed).splits["val"], CLASSES) for seed in (0, 1)]
    assert val[0] != val[1]
    assert [number for number, _ in val[0]] == [2, 15, 17, 24, 27, 34, 36, 43, 45, 48, 49, 58, 76, 85, 91]


def test_every_picture_has_the_same_chance_to_be_carved():
    source = Source("zoo", ["ant"], {"train": as_pixels([0] * 20)})
    times = np.zeros(20)
    for seed in range(2000):
        times[[number for number, _ in tags(carve(source, 5, seed).splits["val"], ["ant"])]] += 1
    # Each is taken with p = 1/4; chi-square with 19 degrees of freedom exceeds 43.8 once in a thousand,
    # and drawing without replacement only lowers it.
    assert ((times - 500) ** 2 / 500).sum() < 43.8


ZOO = Source("zoo", CLASSES, {"train": as_pixels([0, 0, 1, 1, 2, 2, 3, 3, 4]), "test": as_pixels([0])})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ant", "been"], r"zoo: no class 'been'; did you mean bee\?"),
        (["yak"], "zoo: no class 'yak'; there are ant, bee, cow, dog, eel"),
        (["ant", "bee", "ant"], "class 'ant' is named 2 times"),
        ([], "no class is named"),
    ],
)
def test_selection_mistakes(names, message):
    with pytest.raises(UserError, match=message):
        select_classes(ZOO, names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"amount": 1, "name": "test"}, "zoo: has a split 'test' already"),
        ({"amount": 1, "from_": "trian"}, r"zoo: no split 'trian'; did you mean train\?"),
        ({"amount": 1}, "class 'eel' has 1 pictures in train; taking 1 of them for val leaves one"),
        ({"amount": 0.01}, "class 'ant' has 2 pictures in train; taking 0 of them"),
        ({"amount": 0}, "val: 0 is neither a fraction"),
        ({"amount": 1.0}, r"val: 1\.0 is neither a fraction"),
        ({"amount": True}, "val: True is neither a fraction"),
        ({"amount": -0.5}, r"val: -0\.5 is neither a fraction"),
    ],
)
def test_carving_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        carve(ZOO, seed=0, **arguments)


def test_pictures_of_several_classes_are_not_parted_by_class():
    files = Files(Path("/nowhere"), ["a.jpg", "b.jpg"], np.array([[1, -1], [0, 1]], np.int8))
    source = Source("voc2007", ["cat", "dog"], {"train": files})
    with pytest.raises(UserError, match="--classes: voc2007 has several labels a picture"):
        select_classes(source, ["dog"])
    with pytest.raises(UserError, match="--val: voc2007 has several labels a picture"):
        carve(source, 0.5, 0)
