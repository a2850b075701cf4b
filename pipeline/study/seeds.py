"""Figures over seeds: a mean with its 95 % interval, and what it says of a claim."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
PERCENT, COSINE = (0.0, 100.0), (-1.0, 1.0)
"""What errors and cosines cannot leave."""
AGREES, DIFFERS, OPEN = "agrees", "does not agree", "cannot be told here"


@dataclass(frozen=True)
class Interval:
    """Student's, of the mean of ``seeds`` independent runs; nothing is known of it from one run."""

    value: float
    low: float
    high: float
    seeds: int

    def told(self, form: str = "{:.1f}") -> str:
        """12.3 [10.1, 14.5]"""
        value, low, high = (form.format(each).replace("-", "−") for each in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]" if self.seeds > 1 else value


def over_seeds(values: Sequence[float], bounds: tuple[float, float] = (-np.inf, np.inf)) -> Interval:
    """t(S − 1)·s/√S around the mean of (S,) values; with few seeds it is wide, as it should be.

    :param bounds: what a value cannot leave.
    """
    array = np.asarray(values, np.float64)
    mean, count = float(array.mean()), len(array)
    if count == 1:
        return Interval(mean, *bounds, 1)
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * array.std(ddof=1) / np.sqrt(count))
    return Interval(mean, max(mean - half, bounds[0]), min(mean + half, bounds[1]), count)


def over_seeds_of_logs(values: Sequence[float]) -> Interval:
    """The same of positive figures that differ by factors: the geometric mean, the interval of logarithms."""
    found = over_seeds(np.log(np.maximum(np.asarray(values, np.float64), 1e-300)))
    return Interval(*(float(np.exp(each)) for each in (found.value, found.low, found.high)), found.seeds)


def judge(difference: Interval, threshold: float = 0.0) -> str:
    """Of a claim that the difference is above the threshold."""
    if difference.low > threshold:
        return AGREES
    return DIFFERS if difference.high < threshold else OPEN


def judge_all(*differences: Interval) -> str:
    """Of a claim that several differences are all above zero."""
    found = [judge(each) for each in differences]
    return next((word for word in (DIFFERS, OPEN) if word in found), AGREES)
