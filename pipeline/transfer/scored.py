"""From the answers of several runs to their scores and intervals, and to the difference of two models."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.transfer.answers import Answers
from pipeline.transfer.metrics import Metric
from pipeline.transfer.statistics import Estimate, across_runs, across_seeds, difference, resampled


@dataclass(frozen=True)
class Scored:
    """The runs of one model and mode on one dataset, scored.

    :ivar runs: one a seed. :ivar pool: number of pictures that some run may be tested on.
    """

    metric: Metric
    runs: list[Answers]
    classes: int
    pool: int

    @cached_property
    def values(self) -> np.ndarray:
        """(S,) the metric of each run."""
        return np.array([self.metric(run.labels, run.answers, self.classes) for run in self.runs])

    @cached_property
    def scores(self) -> np.ndarray:
        """(S, draws) the metric of each run on test sets drawn anew: the same for all runs and models."""

        # Where nothing is drawn, seeds agree: VOC's three frozen ones are one, and an mAP's draws take long.
        first = [next(i for i, other in enumerate(self.runs) if _same(run, other)) for run in self.runs]

        def statistic(weights: np.ndarray) -> np.ndarray:
            each = {}
            for number in set(first):
                run = self.runs[number]
                drawn = weights[:, run.rows]
                each[number] = self.metric.weighted(run.labels, run.answers, self.classes, drawn)
            return np.stack([each[number] for number in first], axis=1)  # (R, S)

        return resampled(statistic, self.pool, seed=0).T

    @cached_property
    def correct(self) -> np.ndarray | None:
        """(S, N) correctness, where it says everything: top-1 with the same test pictures for all runs."""
        together = all(len(run.rows) == self.pool for run in self.runs)
        if self.metric.name != "top1" or not together:
            return None
        return np.stack([run.answers == run.labels for run in self.runs])

    def estimate(self) -> Estimate:
        """The mean of the runs, with an interval for both sources of chance."""
        if self.correct is not None:
            return across_seeds(self.correct)
        return across_runs(self.values, self.scores, len(self.runs[0].rows))

    def above(self, other: "Scored") -> Estimate:
        """Paired difference to another model or mode: the same seeds, the same test pictures."""
        if self.correct is not None:
            return difference(self.correct, other.correct)
        values, scores = self.values - other.values, self.scores - other.scores
        return across_runs(values, scores, len(self.runs[0].rows), bounds=(-1.0, 1.0))


def _same(one: Answers, other: Answers) -> bool:
    return one is other or all(
        np.array_equal(getattr(one, key), getattr(other, key)) for key in ("answers", "labels", "rows")
    )
