"""Drawing training and validation pictures: counts, disjointness, and what a draw may depend on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import UserError
from pipeline.transfer.subsets import few_shot, stratified_split

seeds = st.integers(0, 2**40)


@st.composite
def label_lists(draw, smallest=1, largest=30):
    """(N,) shuffled labels with `smallest`..`largest` pictures in each of 1 to 6 classes."""
    sizes = draw(st.lists(st.integers(smallest, largest), min_size=1, max_size=6))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(draw(st.integers(0, 2**32))).permutation(labels)


@given(label_lists(smallest=5), st.integers(1, 5), seeds)
@settings(deadline=None)
def test_few_shot_draws_exactly_per_class_without_replacement(labels, per_class, seed):
    rows = few_shot(labels, per_class, seed)
    assert (np.diff(rows) > 0).all()  # sorted, none twice
    assert (np.bincount(labels[rows]) == per_class).all()
    assert np.array_equal(rows, few_shot(labels, per_class, seed))
    assert np.array_equal(rows, few_shot(labels.astype(np.uint8), per_class, seed, classes=labels.max() + 1))


@given(label_lists(smallest=6), seeds)
@settings(deadline=None)
def test_few_shot_grows_by_adding(labels, seed):
    assert set(few_shot(labels, 2, seed)) < set(few_shot(labels, 6, seed))


@given(label_lists(smallest=4), seeds, st.integers(0, 2**32))
@settings(deadline=None)
def test_few_shot_of_a_class_ignores_where_the_others_stand(labels, seed, other):
    """The k-th picture of a class stays chosen when the other classes' rows are moved or taken away."""
    moved = np.random.default_rng(other).permutation(labels)
    without = labels[labels != labels.max()]
    for changed in (moved, without):
        for name in np.unique(changed):
            before = np.isin(np.flatnonzero(labels == name), few_shot(labels, 3, seed))
            after = np.isin(np.flatnonzero(changed == name), few_shot(changed, 3, seed))
            assert np.array_equal(before, after)


def test_few_shot_draws_every_picture_equally_often_and_classes_apart():
    labels = np.repeat([0, 1], 10)
    draws = np.array([np.bincount(few_shot(labels, 5, seed), minlength=20) for seed in range(2000)])
    # Each picture is drawn with probability 1/2: 5 standard deviations of 2,000 draws are 0.056.
    assert np.abs(draws.mean(axis=0) - 0.5).max() < 0.056
    # The same place in the other class is drawn independently: correlation 0, 5 sd are 0.11.
    assert abs(np.corrcoef(draws[:, 3], draws[:, 13])[0, 1]) < 0.11


def test_streams_do_not_change_between_versions():
    """Figures that a seed gave must be found again: these rows were drawn by the first version."""
    labels = np.tile(np.arange(3), 10)
    assert few_shot(labels, 3, seed=7).tolist() == [0, 1, 6, 8, 18, 19, 23, 25, 29]
    assert stratified_split(labels, 0.2, seed=7)[1].tolist() == [7, 8, 9, 18, 19, 29]


def test_few_shot_names_the_class_that_is_too_small():
    labels = np.array([0] * 9 + [1] * 4 + [2] * 9)
    with pytest.raises(UserError, match=r"class 1 has 4 pictures.*per_class=5"):
        few_shot(labels, 5, seed=0)
    with pytest.raises(UserError, match="class 3 has 0 pictures"):
        few_shot(labels, 4, seed=0, classes=4)
    with pytest.raises(UserError, match="per_class=0"):
        few_shot(labels, 0, seed=0)


@given(label_lists(smallest=2), st.floats(0.05, 0.95), seeds)
@settings(deadline=None)
def test_split_is_a_partition_with_each_class_in_its_share(labels, fraction, seed):
    try:
        train, val = stratified_split(labels, fraction, seed)
    except UserError:
        assert round(fraction * labels.size) == 0
        return
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(labels.size))
    assert (np.diff(train) > 0).all()
    assert (np.diff(val) > 0).all()
    sizes, given_ = np.bincount(labels), np.bincount(labels[val], minlength=labels.max() + 1)
    assert (given_ < sizes).all()  # training keeps one of each
    assert (np.abs(given_ - fraction * sizes) < 1 + 1e-9).all()
    capped = (np.floor(fraction * sizes) + 1 >= sizes).any()
    assert len(val) == round(fraction * labels.size) or (capped and len(val) < round(fraction * labels.size))
    again = stratified_split(labels, fraction, seed)
    assert np.array_equal(train, again[0])
    assert np.array_equal(val, again[1])


def test_split_keeps_its_total_where_every_class_alone_would_round_to_nothing():
    """100 classes of 3 pictures at 10 %: 30 classes give one each, and another seed's are others."""
    labels = np.repeat(np.arange(100), 3)
    _, val = stratified_split(labels, 0.1, seed=0)
    assert len(val) == 30
    assert np.bincount(labels[val]).max() == 1
    other = stratified_split(labels, 0.1, seed=1)[1]
    assert set(labels[val]) != set(labels[other])
    assert labels[val].max() > 60  # not just the first classes


def test_split_leaves_a_lone_picture_in_training():
    labels = np.array([0] * 20 + [1])
    train, val = stratified_split(labels, 0.5, seed=3)
    assert 20 in train
    assert len(val) == 10


def test_split_and_few_shot_of_one_seed_are_unrelated():
    """With one stream for both, the split of a few-shot draw would hold out the same pictures every time."""
    labels = np.zeros(10, dtype=int)
    both = [
        len(set(few_shot(labels, 5, seed)) & set(stratified_split(labels, 0.5, seed)[1]))
        for seed in range(500)
    ]
    assert 2.3 < np.mean(both) < 2.7  # 5 * 5 / 10 expected


def test_a_few_of_the_drawn_are_any_of_them():
    """Drawn twice from one stream, a class's first picture came 57 times in 3,000 instead of 4."""
    labels = np.zeros(800, dtype=int)
    taken = np.zeros(800, dtype=int)
    for seed in range(3000):
        drawn = few_shot(labels, 30, seed)
        taken[drawn[few_shot(labels[drawn], 1, seed, of_drawn=True)]] += 1
    assert taken.sum() == 3000
    assert taken.max() < 18  # 3.75 expected; Poisson's chance of one above 17 in 800 is 1e-4
    assert taken[0] < 16


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_split_refuses_a_fraction_outside(fraction):
    with pytest.raises(UserError, match="fraction="):
        stratified_split(np.repeat([0, 1], 5), fraction, seed=0)


def test_split_refuses_to_leave_validation_empty():
    with pytest.raises(UserError, match="leaves none for validation"):
        stratified_split(np.array([0, 1, 2]), 0.5, seed=0)
    with pytest.raises(UserError, match="leaves none for validation"):
        stratified_split(np.array([0, 0, 1]), 0.1, seed=0)
