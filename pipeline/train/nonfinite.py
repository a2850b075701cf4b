"""Steps whose gradient was not finite: skipped by all ranks, counted, and in the end a reason to stop."""

from collections.abc import Sequence

import torch

from pipeline.config import TrainConfig, UserError
from pipeline.data.batches import Batch
from pipeline.data.index import Split
from pipeline.progress import say
from pipeline.train.engine import Stepped
from pipeline.train.ranks import Ranks
from pipeline.train.step_lines import StepLines

NAMED = 3
"""Pictures told by name; all are in the file."""


class DivergedError(UserError):
    """Training has no finite gradient any more; raised on all ranks."""


class NonFinite:
    """Counts skipped steps in a row on every rank alike.

    :param row: step of the last training row; those between it and ``start`` are counted by the next.
    :ivar run: skipped steps since the last good one.
    """

    def __init__(self, config: TrainConfig, pictures: Split, ranks: Ranks, start: int, row: int):
        self._config, self._pictures, self._ranks = config, pictures, ranks
        self._file = config.folder / "nonfinite.tsv"
        self._lines = StepLines(self._file, start, row) if ranks.first else None
        self._skipped = len(set(self._lines.uncounted)) if self._lines else 0  # the first rank writes rows
        self.run = 0
        self._first: list[str] = []

    def close(self) -> None:
        if self._lines:
            self._lines.close()

    def note(self, done: int, stepped: Stepped, batches: Sequence[Batch]) -> None:
        """After every step."""
        if stepped.applied:
            self.run = 0
            return
        self._skipped += 1
        self.run += 1
        guilty = not torch.isfinite(stepped.loss)
        mine = [self._pictures.path(row) for batch in batches for row in batch.rows]
        told = self._ranks.gather((bool(guilty), mine))
        # A loss that is not finite points at a rank; a gradient alone, overflowing backwards, at none.
        some = [(rank, paths) for rank, (bad, paths) in enumerate(told) if bad] or [
            (rank, paths) for rank, (_, paths) in enumerate(told)
        ]
        if self.run == 1:
            self._first = [path for _, paths in some for path in paths]
        if self._ranks.first:
            for rank, paths in some:
                for path in paths:
                    self._lines.add(done, rank, path)
            what = "loss" if any(bad for bad, _ in told) else "gradient"
            say(f"step {done}: the {what} is not finite; the step is skipped by all ranks")

    def take(self) -> int:
        """Steps skipped since the last call. In fp16 some are the rule: the loss scale is found by trying."""
        skipped, self._skipped = self._skipped, 0
        return skipped

    @property
    def too_many(self) -> bool:
        return self.run >= self._config.train.nonfinite_limit

    def complaint(self, done: int) -> DivergedError:
        """What is told when the job stops after step ``done``."""
        first = done - self.run + 1
        named = ", ".join(self._first[:NAMED])
        return DivergedError(
            f"train.nonfinite_limit: no finite gradient in the {self.run} steps {first} to {done}, each was "
            f"skipped; the state before step {first} is saved; pictures of step {first}: {named}, "
            f"... (all in {self._file}); a smaller optim.lr, a longer optim.warmup or optim.clip may help"
        )
