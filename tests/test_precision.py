"""Average precision: by hand with ties and hard ones, against scikit-learn, against VOC's own program."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve

from pipeline.transfer.metrics import METRICS, map_11point, map_all_points
from pipeline.transfer.precision import all_points, average_precision, eleven_points


def scored(targets, scores, area, weights=None) -> float:
    targets, scores = np.array(targets), np.array(scores, float)
    weights = np.ones(len(targets), int) if weights is None else np.array(weights)
    return float(average_precision(targets, scores, weights[:, None], area)[0])


def kit(targets, scores) -> float:
    """VOC2007's VOCevalcls.m, line by line: 1 shown, -1 not, 0 hard. Recall in whole numbers."""
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    truth = np.asarray(targets)[order]
    hits, misses = np.cumsum(truth > 0), np.cumsum(truth < 0)
    total = (truth > 0).sum()
    ap = 0.0
    for point in range(11):
        reached = (10 * hits >= point * total) & (hits + misses > 0)
        precision = hits[reached] / (hits + misses)[reached]
        ap += precision.max(initial=0) / 11
    return ap


@pytest.mark.parametrize(
    ("targets", "scores", "eleven", "whole"),
    [
        ([1, 1, -1, -1], [4, 3, 2, 1], 1, 1),
        ([-1, 1], [2, 1], 1 / 2, 1 / 2),
        # Shown at places 1 and 3 of 4: precision 1 up to recall 0.5 (points 0 to 5), then 2/3.
        ([1, -1, 1, -1], [4, 3, 2, 1], (6 * 1 + 5 * 2 / 3) / 11, (1 + 2 / 3) / 2),
        # A tie of one shown and one not: taken together, precision 1/2, whichever stands first in the file.
        ([1, -1], [1, 1], 1 / 2, 1 / 2),
        ([-1, 1], [1, 1], 1 / 2, 1 / 2),
        # A tie of all says nothing: precision is the share of shown ones.
        ([1, -1, -1, 1, -1], [0, 0, 0, 0, 0], 2 / 5, 2 / 5),
        # The hard one at the top takes no part; counted as not shown it would halve the first precision.
        ([0, 1, -1], [3, 2, 1], 1, 1),
        ([-1, 1, -1], [3, 2, 1], 1 / 2, 1 / 2),
        # A later, better precision counts for earlier recalls: 1/2, then 2/3, then 3/4 at places 2, 3, 4.
        ([-1, 1, 1, 1], [4, 3, 2, 1], 3 / 4, 3 / 4),
        # Recall 3/10 reaches the point 0.3, which floats may say is more: precision 1 at points 0 to 3.
        ([1] * 3 + [-1] * 90 + [1] * 7, [10] * 3 + [5] * 90 + [1] * 7, (4 + 7 * 0.1) / 11, 0.3 + 0.7 * 0.1),
        ([-1, 0], [2, 1], np.nan, np.nan),
    ],
)
def test_by_hand(targets, scores, eleven, whole):
    assert scored(targets, scores, eleven_points) == pytest.approx(eleven, abs=1e-15, nan_ok=True)
    assert scored(targets, scores, all_points) == pytest.approx(whole, abs=1e-15, nan_ok=True)


cases = st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.integers(0, 9)), min_size=1, max_size=40).filter(
    lambda pairs: any(target == 1 for target, _ in pairs)
)


@given(cases)
def test_scikit_learns_curve_gives_the_same(pairs):
    targets, scores = np.array(pairs).T
    counted = targets != 0
    precision, recall, _ = precision_recall_curve(targets[counted] > 0, scores[counted])  # by falling recall
    points = [max(precision[:-1][recall[:-1] >= k / 10 - 1e-12], default=0) for k in range(11)]
    assert scored(targets, scores, eleven_points) == pytest.approx(np.mean(points), abs=1e-12)
    above = [precision[:-1][: i + 1].max() for i in range(len(precision) - 1)]
    area = -np.sum(np.diff(recall) * above)
    assert scored(targets, scores, all_points) == pytest.approx(area, abs=1e-12)
    # scikit-learn's own score has no envelope: never more.
    plain = average_precision_score(targets[counted] > 0, scores[counted])
    assert scored(targets, scores, all_points) >= plain - 1e-12


@given(st.permutations(range(30)), st.lists(st.sampled_from([-1, 0, 1]), min_size=30, max_size=30))
def test_without_ties_it_is_what_the_development_kit_computes(scores, targets):
    if 1 in targets:
        assert scored(targets, scores, eleven_points) == pytest.approx(kit(targets, scores), abs=1e-12)


@given(cases, st.randoms())
def test_only_the_ranking_matters_and_not_the_files_order(pairs, random):
    for area in (eleven_points, all_points):
        was = scored(*zip(*pairs, strict=True), area)
        shuffled = random.sample(pairs, len(pairs))
        moved = [(target, np.exp(score / 2) - 7) for target, score in shuffled]
        assert scored(*zip(*moved, strict=True), area) == pytest.approx(was, abs=1e-14)


@given(cases)
def test_a_hard_picture_is_as_good_as_absent(pairs):
    kept = [pair for pair in pairs if pair[0] != 0]
    for area in (eleven_points, all_points):
        assert scored(*zip(*pairs, strict=True), area) == scored(*zip(*kept, strict=True), area)


def test_the_mean_leaves_out_classes_that_nothing_shows():
    targets = np.array([[1, -1, 1], [-1, -1, -1], [-1, 0, 1]], np.int8)
    scores = np.array([[1.0, 0, 0], [2, 0, 1], [0, 0, -1]])
    assert map_11point.by_class(targets, scores) == pytest.approx([1 / 2, np.nan, 2 / 3], nan_ok=True)
    assert map_11point(targets, scores, 3) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert map_all_points(targets, scores, 3) == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("name", ["map_11point", "map_all_points"])
def test_what_cannot_be_scored_is_a_fault(name):
    targets = np.array([[1, -1], [0, 1]], np.int8)
    with pytest.raises(AssertionError, match="not finite"):
        METRICS[name](targets, np.array([[1.0, np.nan], [0, 0]]), 2)
    with pytest.raises(AssertionError, match="targets"):
        METRICS[name](targets, np.zeros((2, 3)), 2)
