"""Metrics against scikit-learn; intervals against scipy, closed forms and their own coverage."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as oracle

from pipeline.config import UserError
from pipeline.transfer import statistics
from pipeline.transfer.metrics import METRICS, confusion, mean_per_class, metric, top1
from pipeline.transfer.statistics import across_seeds, bootstrap, difference


@st.composite
def scored(draw):
    """(labels, predictions, classes), each class 0..classes-1 possibly absent."""
    classes = draw(st.integers(1, 8))
    pairs = draw(st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), min_size=1, max_size=50))
    return *np.array(pairs).T, classes


@pytest.mark.filterwarnings("ignore:A single label was found")  # the oracle's, of its own call
@given(scored())
@settings(deadline=None)
def test_metrics_are_scikit_learns(case):
    labels, predictions, classes = case
    assert top1(labels, predictions) == pytest.approx(oracle.accuracy_score(labels, predictions), abs=1e-15)
    table = confusion(labels, predictions, classes)
    want = oracle.confusion_matrix(labels, predictions, labels=np.arange(classes))
    assert np.array_equal(table, want)
    present = np.unique(labels)
    recalls = oracle.recall_score(labels, predictions, labels=present, average=None, zero_division=0)
    assert mean_per_class(labels, predictions, classes) == pytest.approx(recalls.mean(), abs=1e-15)


def test_confusion_row_is_true_and_small_integers_do_not_overflow():
    labels, predictions = np.array([199, 199, 3], np.uint8), np.array([7, 199, 3], np.uint8)
    table = confusion(labels, predictions, 200)
    assert table.shape == (200, 200)
    assert (table[199, 7], table[199, 199], table[3, 3], table.sum()) == (1, 1, 1, 3)


def test_mean_per_class_counts_rare_classes_fully():
    labels = np.array([0] * 90 + [1] * 10)
    always_0 = np.zeros(100, int)
    assert top1(labels, always_0) == 0.9
    assert mean_per_class(labels, always_0, 2) == 0.5
    # A class that the test set lacks takes no part.
    assert mean_per_class(labels, always_0, 3) == 0.5


def test_metrics_are_found_by_name_and_called_alike():
    labels, predictions = np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])
    assert {name: metric(name)(labels, predictions, 2) for name in METRICS} == {
        "top1": 0.75,
        "mean_per_class": 0.5,
    }
    with pytest.raises(UserError, match=r"metric='mean_perclass' is unknown; did you mean 'mean_per_class'"):
        metric("mean_perclass")


@pytest.mark.parametrize(("n", "hits"), [(100, 80), (1000, 500), (4000, 3700)])
def test_bootstrap_of_correctness_is_the_binomial(n, hits):
    """Resampling 0/1 is drawing Binomial(n, p): the interval's ends are its quantiles."""
    low, high = bootstrap(np.arange(n) < hits, seed=1, draws=4000)
    # An order statistic of 4,000 draws stands at its level to +-0.25 %, one sd; 5 sd either way.
    for end, tail in ((low, 0.025), (high, 0.975)):
        reach = 5 * (tail * (1 - tail) / 4000) ** 0.5
        allowed = stats.binom.ppf([max(tail - reach, 0), min(tail + reach, 1)], n, hits / n) / n
        assert allowed[0] <= end <= allowed[1]


def test_bootstrap_is_scipys_percentile_interval():
    values = np.random.default_rng(0).gamma(1.0, size=300)
    low, high = bootstrap(values, seed=0, draws=20_000, level=0.9)
    want = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", confidence_level=0.9, rng=1
    )
    assert [low, high] == pytest.approx(list(want.confidence_interval), abs=0.004)  # 4 sd of the quantile


def test_bootstrap_of_mean_per_class_is_the_metric_on_resampled_pictures(monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.choice(4, p=[0.6, 0.3, 0.08, 0.02], size=40)  # class 3 is missing from some resamples
    predictions = np.where(rng.random(40) < 0.7, labels, rng.integers(4, size=40))
    seen = []

    def metric_of_each(resampled_labels, resampled_predictions):
        pairs = list(zip(resampled_labels, resampled_predictions, strict=True))
        seen.extend(3 in drawn for drawn, _ in pairs)
        return np.array([mean_per_class(*pair, 4) for pair in pairs])

    columns = (labels, predictions)
    slow = bootstrap(columns, statistic=metric_of_each, seed=5, draws=500)
    fast = bootstrap(columns, statistic=statistics.mean_per_class(4), seed=5, draws=500)
    assert fast == pytest.approx(slow, abs=1e-14)
    assert set(seen) == {True, False}
    monkeypatch.setattr(statistics, "_CHUNK", 130)  # 3 resamples at a time
    assert bootstrap(columns, statistic=statistics.mean_per_class(4), seed=5, draws=500) == fast


def test_bootstrap_repeats_and_its_memory_is_bounded():
    values = np.random.default_rng(0).random(20_000) < 0.9
    tracemalloc.start()
    first = bootstrap(values, seed=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6  # all at once would be 320 MB of rows alone
    assert first == bootstrap(values, seed=3)
    assert first != bootstrap(values, seed=4)


def random_scores(seeds, pictures, rng):
    return (
        rng.random((seeds, 1)) * 0.2 + rng.random((1, pictures)) * 0.6 + rng.random((seeds, pictures)) * 0.2
    )


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize(("seeds", "pictures"), [(2, 50), (3, 400), (10, 8)])
def test_interval_adds_the_two_t_intervals_in_quadrature(seeds, pictures, level):
    values = random_scores(seeds, pictures, np.random.default_rng(seeds))
    got = across_seeds(values, level)
    square = 0.0
    for means in (values.mean(axis=1), values.mean(axis=0)):
        low, high = stats.ttest_1samp(means, 0).confidence_interval(level)
        square += ((high - low) / 2) ** 2
    assert got.value == pytest.approx(values.mean())
    assert (got.low, got.high) == pytest.approx((values.mean() - square**0.5, values.mean() + square**0.5))
    assert got.seeds == seeds


def test_each_source_alone_is_students_t():
    rng = np.random.default_rng(0)
    pictures = rng.random(30)
    for correct in (pictures[None], np.tile(pictures, (3, 1))):  # one run; three runs that agree
        got = across_seeds(correct)
        want = stats.t.interval(0.95, 29, pictures.mean(), stats.sem(pictures))
        assert (got.low, got.high) == pytest.approx(want, rel=1e-9)
    runs = np.array([0.4, 0.5, 0.55])
    got = across_seeds(np.tile(runs[:, None], (1, 30)))  # pictures alike
    assert (got.low, got.high) == pytest.approx(
        stats.t.interval(0.95, 2, runs.mean(), stats.sem(runs)), rel=1e-9
    )


def test_intervals_are_clipped():
    two_runs = np.repeat([[1.0], [0.6]], 20, axis=1)
    got = across_seeds(two_runs)
    assert (got.low, got.high) == (0.0, 1.0)
    apart = difference(two_runs, 1 - two_runs)
    assert (apart.low, apart.high) == (-1.0, 1.0)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_perfect_score_is_not_certain(value):
    """100 of 100 right: the interval is Clopper and Pearson's."""
    got = across_seeds(np.full((3, 100), value))
    want = stats.binomtest(int(100 * value), 100).proportion_ci(0.95, method="exact")
    assert (got.value, got.low, got.high) == pytest.approx((value, want.low, want.high), abs=1e-12)


def test_no_difference_seen_is_not_no_difference():
    correct = np.random.default_rng(0).random((3, 200)) < 0.7
    got = difference(correct, correct)
    share = 1 - 0.025 ** (1 / 200)
    assert (got.value, got.low, got.high) == pytest.approx((0, -share, share))


def test_runs_that_cancel_on_every_picture_still_have_width():
    row = np.arange(100) % 2
    got = across_seeds(np.stack([row, 1 - row]))
    assert got.value == 0.5
    assert got.high - got.low > 0.1


def test_difference_is_paired_and_antisymmetric():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=(1, 500))  # what makes a picture hard for both
    a = hard + rng.normal(size=(3, 500)) * 0.1 + 0.15 > 0
    b = hard + rng.normal(size=(3, 500)) * 0.1 > 0
    got, back = difference(a, b), difference(b, a)
    assert (got.value, got.low, got.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert got.value == pytest.approx(a.mean() - b.mean())
    assert got.low > 0  # seen in pairs ...
    assert across_seeds(a).low < across_seeds(b).high  # ... and lost in separate intervals


def simulate(rng, seeds, pictures, spread_seed, spread_picture, luck, shift=0.6):
    """Correctness of a probit model: right where shift + run + picture + luck > 0; and its true accuracy."""
    run = rng.normal(size=(seeds, 1)) * spread_seed
    picture = rng.normal(size=(1, pictures)) * spread_picture
    correct = shift + run + picture + rng.normal(size=(seeds, pictures)) * luck > 0
    return correct, stats.norm.cdf(shift / (spread_seed**2 + spread_picture**2 + luck**2) ** 0.5)


# (seeds, pictures, spread of runs, spread of pictures, luck)
REGIMES = {
    "runs dominate": (3, 2000, 0.3, 1.0, 0.1),
    "runs lead": (3, 1000, 0.1, 1.0, 0.1),
    "pictures dominate": (3, 300, 0.01, 1.0, 0.1),
    "both": (3, 300, 0.06, 1.0, 0.3),
    "five runs": (5, 300, 0.1, 1.0, 0.3),
    "one run, alike": (1, 300, 0.0, 1.0, 0.3),
}


@pytest.mark.parametrize("name", REGIMES)
def test_intervals_cover_the_truth(name):
    """2,000 experiments: 95 % has a standard deviation of 0.5 % there."""
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(2000):
        correct, truth = simulate(rng, *REGIMES[name])
        got = across_seeds(correct)
        covered += got.low <= truth <= got.high
    assert 0.935 <= covered / 2000 <= 0.985


def test_other_intervals_would_not_cover():
    """The simulation can tell: without the runs' part, or with Welch's one t, it is missed too often."""
    rng = np.random.default_rng(11)
    covered, welch_covered = 0, 0
    for _ in range(2000):
        correct, truth = simulate(rng, *REGIMES["runs dominate"])
        got = across_seeds(correct.mean(axis=0, keepdims=True))
        covered += got.low <= truth <= got.high
        welch = stats.ttest_ind(correct.mean(axis=1), correct.mean(axis=0), equal_var=False)
        low, high = welch.confidence_interval(0.95)
        welch_covered += abs(correct.mean() - truth) <= (high - low) / 2
    assert covered / 2000 < 0.6
    assert welch_covered / 2000 < 0.93


def test_differences_cover_the_truth():
    """Two models with a run's and a picture's part in common, and a part of their own."""
    rng = np.random.default_rng(12)
    covered = 0
    spread = (0.05**2 + 0.08**2 + 1 + 0.2**2 + 0.1**2) ** 0.5
    truth = stats.norm.cdf(0.7 / spread) - stats.norm.cdf(0.5 / spread)
    for _ in range(2000):
        common = rng.normal(size=(3, 1)) * 0.05 + rng.normal(size=(1, 400))
        a, b = (
            shift
            + common
            + rng.normal(size=(3, 1)) * 0.08
            + rng.normal(size=(1, 400)) * 0.2
            + rng.normal(size=(3, 400)) * 0.1
            > 0
            for shift in (0.7, 0.5)
        )
        got = difference(a, b)
        covered += got.low <= truth <= got.high
    assert 0.93 <= covered / 2000 <= 0.985


def test_unpaired_or_impossible_correctness_is_refused():
    with pytest.raises(AssertionError, match="unpaired"):
        difference(np.ones((3, 10)), np.ones((2, 10)))
    with pytest.raises(AssertionError, match="outside"):
        across_seeds(np.full((3, 10), 87.5))  # per cent
    with pytest.raises(AssertionError, match="want"):
        across_seeds(np.ones(10))
