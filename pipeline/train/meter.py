"""What happened between two rows of metrics: rate, waiting for pictures, pictures that could not be shown."""

import math
import time
from collections.abc import Iterator, Sequence
from itertools import islice

from pipeline.config import TrainConfig, UserError
from pipeline.data.batches import Batch, Fault
from pipeline.data.receipt import WRAP
from pipeline.progress import say
from pipeline.train.phases import Phases
from pipeline.train.ranks import Ranks
from pipeline.train.step_lines import StepLines

SHARES = ("data_wait", "forward", "backward", "communication", "optimizer")
"""Of a step's time; what is missing to 1 is the loop itself, evaluation and saving excepted."""
NAMED = 5
"""Pictures told by name when there are many; all are in the file."""


class Meter:
    """Counts on every rank; ``row`` puts the ranks' counts together.

    :param n: pictures in the training split.
    :param row: step of the last row; what failed between it and ``start`` is counted by the next.
    """

    def __init__(self, config: TrainConfig, n: int, ranks: Ranks, start: int, phases: Phases, row: int):
        self._config, self._n, self._ranks, self._phases = config, n, ranks, phases
        self._bad: dict[str, str] = {}  # path and reason of every picture that failed since this start
        self._file = config.folder / "faults.tsv"
        self._lines = StepLines(self._file, start, row) if ranks.first else None
        self._faults: list[Fault] = []  # of this rank, not told yet
        # Of all ranks, since the last row, which the first rank writes.
        self._told = len(self._lines.uncounted) if self._lines else 0
        self._receipt = 0  # of this rank's part of the last step
        self.restart(start)

    def close(self) -> None:
        if self._lines:
            self._lines.close()

    def restart(self, done: int) -> None:
        """Time from here on belongs to the steps after ``done``."""
        self._since, self._clock, self._waited = done, time.monotonic(), 0.0
        self._phases.take()

    def next(self, batches: Iterator[Batch], count: int) -> list[Batch]:
        """A step's micro-batches; the time until they are there is time lost to loading."""
        begun = time.monotonic()
        found = list(islice(batches, count))
        self._waited += time.monotonic() - begun
        self._faults += [fault for batch in found for fault in batch.faults]
        self._receipt = sum(batch.receipt for batch in found)
        return found

    def row(self, done: int) -> dict:
        """Since the last row: images_per_s; data_wait, forward, backward, communication (what backward did
        not hide) and optimizer as shares of the time, mean over ranks; faults (pictures replaced). And of the
        step itself its receipt (``data.receipt``) as ``receipt``, 16 hexadecimal digits.

        :raises UserError: on all ranks, when too many pictures are bad.
        """
        passed = time.monotonic() - self._clock
        seconds = {"data_wait": self._waited} | self._phases.take()
        own = [seconds.get(phase, 0.0) / passed for phase in SHARES]
        shares, faults, receipts = zip(*self._ranks.gather((own, self._faults, self._receipt)), strict=True)
        rate = (done - self._since) * self._config.train.batch / passed
        self.restart(done)
        self._note(done, faults)
        count, self._told = self._told, 0
        means = [sum(part) / len(part) for part in zip(*shares, strict=True)]
        receipt = f"{sum(receipts) % WRAP:016x}"
        rates = {"images_per_s": rate, **dict(zip(SHARES, means, strict=True))}
        return rates | {"faults": count, "receipt": receipt}

    def tell(self, done: int) -> None:
        """Names what failed until now, between two rows: after a checkpoint these steps are not done again.

        :raises UserError: on all ranks, when too many pictures are bad.
        """
        self._note(done, self._ranks.gather(self._faults))

    def _note(self, done: int, told: Sequence[list[Fault]]) -> None:
        """:param told: what failed on each rank."""
        faults = [fault for part in told for fault in part]
        self._faults, self._told = [], self._told + len(faults)
        new = {fault.path: fault.reason for fault in faults if fault.path not in self._bad}
        self._bad |= new
        if faults and self._ranks.first:
            for fault in faults:
                self._lines.add(done, fault.path, fault.reason)
            for path, reason in list(new.items())[:NAMED]:
                say(f"{path}: {reason}; another picture stands in for it")
        limit = self._config.data.loading.fault_limit
        if len(self._bad) > math.ceil(limit * self._n):
            named = ", ".join(f"{path} ({reason})" for path, reason in list(self._bad.items())[:NAMED])
            raise UserError(
                f"data.loading.fault_limit: {len(self._bad)} of {self._n} training pictures cannot be "
                f"shown, more than {limit:.3%}: {named}; all are in {self._file}"
            )
