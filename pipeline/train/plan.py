"""What a run will do at which step: plain arithmetic, so that every rank and every restart agrees."""

import math
from dataclasses import dataclass

from pipeline.config import Train, TrainConfig
from pipeline.data.order import share


def steps_of(train: Train, n: int) -> int:
    """Optimizer steps of a run on ``n`` pictures: all of ``epochs``, or of ``steps`` if these are fewer."""
    # 1e-9: 1.1 epochs of 50,000 pictures in batches of 100 are 550 steps, whatever the rounding.
    whole = None if train.epochs is None else max(1, math.ceil(train.epochs * n / train.batch - 1e-9))
    return min(each for each in (whole, train.steps) if each is not None)


@dataclass(frozen=True)
class Plan:
    """:ivar steps: optimizer steps of the whole run.
    :ivar micro_batch: pictures of one forward pass on one rank.
    """

    config: TrainConfig
    n: int
    steps: int
    micro_batch: int

    @classmethod
    def of(cls, config: TrainConfig, n: int, world: int) -> "Plan":
        """:raises UserError: the ranks cannot split the global batch, or not into pairs that are mixed."""
        in_pairs = config.data.pictures.augment.in_pairs
        micro_batch = share(config.train.batch, world, config.train.accumulate, in_pairs=in_pairs)
        return cls(config, n, steps_of(config.train, n), micro_batch)

    @property
    def steps_per_epoch(self) -> float:
        return self.n / self.config.train.batch

    def epoch(self, done: int) -> float:
        """Passes over the pictures after ``done`` steps."""
        return done / self.steps_per_epoch

    def side(self, step: int) -> int | None:
        """Of the training pictures at a step, where the config makes them grow; pixels."""
        pictures = self.config.data.pictures
        return pictures.progressive and pictures.progressive.side(self.epoch(step), pictures.size)

    def logs(self, done: int) -> bool:
        return done % self.config.monitor.log_every == 0 or done == self.steps

    def looks(self, done: int) -> bool:
        """Whether the gradient's flow is measured in step ``done``; the first and the last always count."""
        every = self.config.monitor.gradients_every
        return every is not None and (done % every == 0 or done in (1, self.steps))

    def evaluates(self, done: int) -> bool:
        return self.config.data.val is not None and self._crosses(done, self.config.monitor.eval_every)

    def saves(self, done: int) -> bool:
        return self._crosses(done, self.config.checkpoint.every)

    def _crosses(self, done: int, epochs: float) -> bool:
        """Whether a multiple of ``epochs`` was reached just now; the last step always counts."""
        now, before = self.epoch(done) / epochs, self.epoch(done - 1) / epochs
        # 1e-9: an epoch that ends with a step is reached, whatever the rounding of the division.
        return math.floor(now + 1e-9) > math.floor(before + 1e-9) or done == self.steps
