"""How sure a score is: intervals over test pictures, over seeds, and of the difference between two models."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

# Resampled values held at once by the bootstrap (8 bytes each, a few arrays of them).
_CHUNK = 2_000_000

Statistic = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A score with its interval; `seeds` is how many training runs stand behind it."""

    value: float
    low: float
    high: float
    seeds: int


def mean(values: np.ndarray) -> np.ndarray:
    """The bootstrap's default statistic: (R, N) resampled values -> (R,) means."""
    return values.mean(axis=1)


def mean_per_class(classes: int) -> Statistic:
    """metrics.mean_per_class as a statistic of the bootstrap: (R, N) labels, (R, N) predictions -> (R,).

    As there, a class without a picture in a resample takes no part in that resample's mean.
    """

    def statistic(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        draws = len(labels)
        cells = np.arange(draws)[:, None] * classes + labels  # (R, N)
        size = draws * classes
        pictures = np.bincount(cells.ravel(), minlength=size).reshape(draws, classes)
        hits = np.bincount(cells[labels == predictions], minlength=size).reshape(draws, classes)
        return (hits / np.maximum(pictures, 1)).sum(axis=1) / (pictures > 0).sum(axis=1)

    return statistic


def bootstrap(
    values: np.ndarray | tuple[np.ndarray, ...],
    *,
    seed: int,
    statistic: Statistic = mean,
    level: float = 0.95,
    draws: int = 2000,
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) over the test pictures.

    Efron & Tibshirani 1993, "An Introduction to the Bootstrap", §13.3.

    values: (N,) per picture, as 0/1 correctness, or a tuple of such columns whose rows are resampled
    together, as (labels, predictions) with statistic=mean_per_class(classes). `statistic` takes the columns
    resampled, (R, N) each, and returns (R,). The model is held fixed: this tells what another test set of N
    pictures would give, nothing about another training run (across_seeds does). Memory does not grow with
    `draws`.
    """
    columns = values if isinstance(values, tuple) else (values,)
    n = len(columns[0])
    assert n > 0, "no picture to resample"
    assert all(column.shape == (n,) for column in columns), f"want (N,) each: {[c.shape for c in columns]}"
    assert 0 < level < 1, f"level {level} outside 0..1"
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    chunk = max(1, _CHUNK // n)
    found = []
    for start in range(0, draws, chunk):
        rows = rng.integers(n, size=(min(chunk, draws - start), n))  # (R, N)
        found.append(statistic(*(column[rows] for column in columns)))
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def across_seeds(correct: np.ndarray, level: float = 0.95) -> Estimate:
    """Mean accuracy over S training runs and N test pictures, with an interval for both sources of chance.

    correct: (S, N), row s the correctness (bool, or a score in 0..1) of run s on the same N pictures.
    Clipped to 0..1. With m_s the mean of run s, c_i the mean of picture i and m the mean of all, the half
    width h is that of the two sources' own Student intervals, added in quadrature:

        h^2 = t(S - 1)^2 A + t(N - 1)^2 B
        A = sum_s (m_s - m)^2 / (S - 1) / S      another draw of seeds
        B = sum_i (c_i - m)^2 / (N - 1) / N      another draw of test pictures

    With S = 1 there is no A and the interval is the test set's alone.

    Why not a bootstrap over seeds: three runs have 10 distinct resamples, whose variance is too small by
    (S - 1) / S and whose quantiles don't know how uncertain three runs leave the variance itself; Student's
    t with 2 degrees of freedom (4.30, not 1.96) does. Why not one t at the degrees of freedom of Welch and
    Satterthwaite: with three runs that covers 92 % for 95 % where A is 10 B, because runs that agree by
    chance make A small and the degrees of freedom many at once. The sum above covers at least its level,
    whatever A / B is (Banerjee 1960, Sankhya 22, 357): with three runs 95 to 97.6 %. What run and picture
    share (a run being right on a picture by luck) is in A and in B, which errs to the wide side again, the
    less the more the runs agree (compare Owen 2007, "The pigeonhole bootstrap", doi 10.1214/07-AOAS122).

    Where all runs and pictures agree exactly, A = B = 0 says only that N pictures showed no exception. Then
    exceptions are at most a share 1 - (alpha / 2)^(1/N) of all pictures (Clopper & Pearson 1934), and the
    interval is what such a share could change.
    """
    correct = np.asarray(correct, dtype=np.float64)
    assert ((correct >= 0) & (correct <= 1)).all(), "correctness outside 0..1"
    return _interval(correct, level, bounds=(0.0, 1.0))


def difference(correct_a: np.ndarray, correct_b: np.ndarray, level: float = 0.95) -> Estimate:
    """Paired difference in accuracy, a minus b, with across_seeds's interval; clipped to -1..1.

    correct_a, correct_b: (S, N). Row s of both comes from the same seed, so from the same training
    pictures, and column i from the same test picture. Differences are taken first and the interval is
    theirs: what makes a seed or a picture hard for both models cancels, which comparing two separate
    intervals throws away.
    """
    a, b = np.asarray(correct_a, dtype=np.float64), np.asarray(correct_b, dtype=np.float64)
    assert a.shape == b.shape, f"unpaired: {a.shape} against {b.shape}"
    for correct in (a, b):
        assert ((correct >= 0) & (correct <= 1)).all(), "correctness outside 0..1"
    return _interval(a - b, level, bounds=(-1.0, 1.0))


def _interval(values: np.ndarray, level: float, bounds: tuple[float, float]) -> Estimate:
    """The interval that across_seeds describes, of (S, N) values that cannot leave `bounds`."""
    assert values.ndim == 2, f"want (seeds, pictures), got {values.shape}"
    seeds, pictures = values.shape
    assert seeds >= 1, "no run"
    assert pictures >= 2, f"{pictures} test pictures have no variance"
    assert 0 < level < 1, f"level {level} outside 0..1"
    value = float(values.mean())
    tail = (1 - level) / 2
    if (values == values[0, 0]).all():
        value = float(values[0, 0])  # exactly: a mean of equal floats may round
        share = 1 - tail ** (1 / pictures)
        return Estimate(
            value, value - (value - bounds[0]) * share, value + (bounds[1] - value) * share, seeds
        )
    between_seeds = float(values.mean(axis=1).var(ddof=1)) / seeds if seeds > 1 else 0.0
    between_pictures = float(values.mean(axis=0).var(ddof=1)) / pictures
    if between_seeds + between_pictures < 1e-20:
        # No two runs and no two pictures differ in their means, yet single values do (two runs, each right
        # where the other is wrong): all S * N values as independent ones are what is left to go by.
        between_pictures = float(values.var(ddof=1)) / values.size
    square = stats.t.ppf(1 - tail, pictures - 1) ** 2 * between_pictures
    if seeds > 1:
        square += stats.t.ppf(1 - tail, seeds - 1) ** 2 * between_seeds
    half = float(square) ** 0.5
    return Estimate(value, max(bounds[0], value - half), min(bounds[1], value + half), seeds)
