"""How sure a score is: intervals over test pictures, over seeds, and of the difference between two models."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

# Resampled values held at once by the bootstrap (8 bytes each, a few arrays of them).
_CHUNK = 2_000_000

Statistic = Callable[[np.ndarray], np.ndarray]
"""(R, N): how often each of N pictures was drawn, in R draws -> (R,) or (R, S): scores of each draw."""


@dataclass(frozen=True)
class Estimate:
    """A score with its interval; `seeds` is how many training runs stand behind it."""

    value: float
    low: float
    high: float
    seeds: int


def resampled(statistic: Statistic, pictures: int, *, seed: int, draws: int = 2000) -> np.ndarray:
    """(draws,), or (draws, S), scores of test sets of as many pictures, drawn from these with replacement.

    The same seed draws the same pictures for every statistic, so that scores of two models are of the same
    test sets. All pictures are drawn alike, whatever their class: class sizes vary as another collection's
    would. Drawing within classes instead would give a class with one test picture no variance, and one with
    two half of it: simulated with 30 classes of 1 to 80 pictures, 95 % intervals of the mean per class cover
    90 % this way and 59 % that way; with 20 to 30 pictures each, both alike. Memory does not grow with
    `draws`.
    """
    assert pictures > 0, "no picture to resample"
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    chunk = max(1, _CHUNK // pictures)
    found = []
    for start in range(0, draws, chunk):
        rows = rng.integers(pictures, size=(min(chunk, draws - start), pictures))  # (R, N)
        cells = rows + np.arange(len(rows))[:, None] * pictures
        found.append(statistic(np.bincount(cells.ravel(), minlength=rows.size).reshape(rows.shape)))
    return np.concatenate(found)


def interval(scores: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high): Efron & Tibshirani 1993, "An Introduction to the Bootstrap",
    §13.3. scores: of ``resampled``.

    The model is held fixed: this tells what another test set would give, nothing about another training run
    (across_seeds and across_runs do).
    """
    assert 0 < level < 1, f"level {level} outside 0..1"
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def across_runs(
    values: np.ndarray,
    scores: np.ndarray,
    pictures: int,
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = 0.95,
) -> Estimate:
    """across_seeds for any score: the pictures' part B is the bootstrap's variance of the runs' mean.

    values: (S,) scores of the runs, or differences of paired ones; scores: (S, draws) of ``resampled``, the
    same draws for all runs; pictures: N, of a test set; bounds: what a value cannot leave.
    """
    seeds = len(values)
    between_seeds = float(np.var(values, ddof=1)) / seeds if seeds > 1 else 0.0
    if (values == values[0]).all() and (scores == scores[0, 0]).all():
        return _without_exception(float(values[0]), seeds, pictures, bounds, level)
    between_pictures = float(scores.mean(axis=0).var(ddof=1))
    return _combined(float(np.mean(values)), between_seeds, between_pictures, seeds, pictures, bounds, level)


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
    if (values == values[0, 0]).all():  # exactly: a mean of equal floats may round
        return _without_exception(float(values[0, 0]), seeds, pictures, bounds, level)
    between_seeds = float(values.mean(axis=1).var(ddof=1)) / seeds if seeds > 1 else 0.0
    between_pictures = float(values.mean(axis=0).var(ddof=1)) / pictures
    if between_seeds + between_pictures < 1e-20:
        # No two runs and no two pictures differ in their means, yet single values do (two runs, each right
        # where the other is wrong): all S * N values as independent ones are what is left to go by.
        between_pictures = float(values.var(ddof=1)) / values.size
    value = float(values.mean())
    return _combined(value, between_seeds, between_pictures, seeds, pictures, bounds, level)


def _without_exception(
    value: float, seeds: int, pictures: int, bounds: tuple[float, float], level: float
) -> Estimate:
    share = 1 - ((1 - level) / 2) ** (1 / pictures)
    return Estimate(value, value - (value - bounds[0]) * share, value + (bounds[1] - value) * share, seeds)


def _combined(
    value: float,
    between_seeds: float,
    between_pictures: float,
    seeds: int,
    pictures: int,
    bounds: tuple[float, float],
    level: float,
) -> Estimate:
    assert 0 < level < 1, f"level {level} outside 0..1"
    tail = (1 - level) / 2
    square = stats.t.ppf(1 - tail, pictures - 1) ** 2 * between_pictures
    if seeds > 1:
        square += stats.t.ppf(1 - tail, seeds - 1) ** 2 * between_seeds
    half = float(square) ** 0.5
    return Estimate(value, max(bounds[0], value - half), min(bounds[1], value + half), seeds)
