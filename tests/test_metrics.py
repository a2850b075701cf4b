"""Metrics against scikit-learn; intervals against scipy, closed forms and their own coverage."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as oracle

from pipeline.transfer import statistics
from pipeline.transfer.metrics import METRICS, confusion, mean_per_class, top1
from pipeline.transfer.statistics import across_runs, across_seeds, difference, interval, resampled


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
    right = oracle.accuracy_score(labels, predictions)
    assert top1(labels, predictions, classes) == pytest.approx(right, abs=1e-15)
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
    assert top1(labels, always_0, 2) == 0.9
    assert mean_per_class(labels, always_0, 2) == 0.5
    # A class that the test set lacks takes no part.
    assert mean_per_class(labels, always_0, 3) == 0.5


def test_metrics_are_found_by_name_and_called_alike():
    labels, predictions = np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])
    found = {name: each(labels, predictions, 2) for name, each in METRICS.items() if not each.multilabel}
    assert found == {"top1": 0.75, "mean_per_class": 0.5}


def share(correct: np.ndarray):
    return lambda weights: weights @ correct / weights.sum(axis=1)


@pytest.mark.parametrize(("n", "hits"), [(100, 80), (1000, 500), (4000, 3700)])
def test_bootstrap_of_correctness_is_the_binomial(n, hits):
    """Resampling 0/1 is drawing Binomial(n, p): the interval's ends are its quantiles."""
    low, high = interval(resampled(share(np.arange(n) < hits), n, seed=1, draws=4000))
    # An order statistic of 4,000 draws stands at its level to +-0.25 %, one sd; 5 sd either way.
    for end, tail in ((low, 0.025), (high, 0.975)):
        reach = 5 * (tail * (1 - tail) / 4000) ** 0.5
        allowed = stats.binom.ppf([max(tail - reach, 0), min(tail + reach, 1)], n, hits / n) / n
        assert allowed[0] <= end <= allowed[1]


def test_bootstrap_is_scipys_percentile_interval():
    values = np.random.default_rng(0).gamma(1.0, size=300)
    low, high = interval(resampled(share(values), 300, seed=0, draws=20_000), level=0.9)
    want = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", confidence_level=0.9, rng=1
    )
    assert [low, high] == pytest.approx(list(want.confidence_interval), abs=0.004)  # 4 sd of the quantile


def drawn_answers(metric, rng):
    """40 test pictures of four classes, or with five classes of which each may be shown, not, or hard."""
    if not metric.multilabel:
        labels = rng.choice(4, p=[0.6, 0.3, 0.08, 0.02], size=40)  # class 3 is missing from some resamples
        return labels, np.where(rng.random(40) < 0.7, labels, rng.integers(4, size=40)), 4
    targets = rng.choice([-1, 0, 1], p=[0.7, 0.1, 0.2], size=(40, 5)).astype(np.int8)
    targets[:, 3] = -1
    targets[rng.integers(40), 3] = 1
    return targets, (targets + rng.normal(size=(40, 5))).round(1), 5  # with ties


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_weighed_is_the_metric_on_resampled_pictures(name, monkeypatch):
    metric = METRICS[name]
    labels, answers, classes = drawn_answers(metric, np.random.default_rng(0))
    lacking = set()

    def of_each(weights):
        rows = [np.repeat(np.arange(40), drawn) for drawn in weights]
        rare = labels == 3 if labels.ndim == 1 else labels[:, 3] == 1
        lacking.update(bool(rare[each].any()) for each in rows)
        return np.array([metric(labels[each], answers[each], classes) for each in rows])

    def fast(weights):
        return metric.weighted(labels, answers, classes, weights)

    want = resampled(of_each, 40, seed=5, draws=300)
    assert resampled(fast, 40, seed=5, draws=300) == pytest.approx(want, abs=1e-14)
    assert lacking == {True, False}
    monkeypatch.setattr(statistics, "_CHUNK", 130)  # 3 resamples at a time
    assert resampled(fast, 40, seed=5, draws=300) == pytest.approx(want, abs=1e-14)


def test_bootstrap_repeats_and_its_memory_is_bounded():
    correct = np.random.default_rng(0).random(20_000) < 0.9
    tracemalloc.start()
    first = resampled(share(correct), 20_000, seed=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 96e6  # all at once would be 320 MB of rows alone
    assert np.array_equal(first, resampled(share(correct), 20_000, seed=3))
    assert not np.array_equal(first, resampled(share(correct), 20_000, seed=4))


@pytest.mark.parametrize("seeds", [1, 3])
def test_across_runs_is_across_seeds_where_both_can_be_had(seeds):
    rng = np.random.default_rng(seeds)
    right = rng.random((seeds, 600)) < np.linspace(0.3, 0.9, 600)
    scores = resampled(lambda weights: weights @ right.T / 600, 600, seed=0, draws=20_000).T
    got, want = across_runs(right.mean(axis=1), scores, 600), across_seeds(right)
    assert got.value == pytest.approx(want.value)
    assert (got.low, got.high) == pytest.approx((want.low, want.high), rel=0.003)
    perfect = across_runs(np.ones(3), np.ones((3, 2000)), 100)
    assert perfect == across_seeds(np.ones((3, 100)))


def test_mean_per_class_covers_the_truth_where_classes_are_small():
    """Better, at least, than resampled within classes: Caltech-101's test has classes of a few pictures."""
    rng = np.random.default_rng(0)
    sizes = np.repeat([1, 2, 5, 20, 80], 6)
    labels, truth = np.repeat(np.arange(30), sizes), rng.uniform(0.4, 1, 30)
    within, free = 0, 0
    for _ in range(300):
        right = rng.random(len(labels)) < truth[labels]
        said = np.where(right, labels, 30)

        def statistic(weights, said=said):
            return mean_per_class.weighted(labels, said, 30, weights)

        low, high = interval(resampled(statistic, len(labels), seed=0, draws=400))
        free += low <= truth.mean() <= high
        shares = np.bincount(labels, right) / sizes
        strata = np.stack(
            [rng.binomial(size, share, 400) / size for size, share in zip(sizes, shares, strict=True)]
        )
        low, high = interval(strata.mean(axis=0))
        within += low <= truth.mean() <= high
    assert free / 300 > 0.87
    assert within / 300 < 0.7


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
