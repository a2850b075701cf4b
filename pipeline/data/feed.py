"""What DALI is fed: pictures read ahead, with every picture that cannot be shown replaced by another.

A replacement is a function of (seed, epoch, picture) like the crop, and whether a picture must be replaced
is decided anew each time it comes, from its bytes alone: so a run that was killed and continued replaces
the same pictures as one that was not, on any number of ranks.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from pipeline.config import UserError
from pipeline.data import draws
from pipeline.data.batches import Fault, Rows
from pipeline.data.index import Split
from pipeline.data.reader import Reader, Unreadable

TRIES = 16
"""Replacements drawn for one picture before the split is given up: so many bad ones are no accident."""


@dataclass
class Fed:
    """One batch on its way: the rows that it really holds, and their pictures."""

    plan: Rows
    rows: np.ndarray  # (b,) int64: the plan's, but for replaced ones
    content: np.ndarray | list
    tried: dict[int, int] = field(default_factory=dict)
    """Replacements drawn so far, by place in the batch."""
    faults: list[Fault] = field(default_factory=list)
    arrays: tuple = ()
    """What DALI was given, without a copy: it must live until the batch has come out."""

    @property
    def weight(self) -> np.ndarray:
        """The plan's weight; in an evaluation a replacement does not count."""
        weight = self.plan.weight.copy()
        weight[list(self.tried)] = 0
        return weight


class Feed:
    """Batches for DALI, one ``next`` each.

    :param decodes: whether DALI can decode this picture, (bytes,) uint8 of row and epoch; asked only of
        pictures that failed before.
    :param seed: of the replacements.
    """

    def __init__(
        self,
        split: Split,
        plan: Iterator[Rows],
        reader: Reader | None,
        ahead: int,
        seed: int,
        decodes: Callable[[np.ndarray, int, int, Rows], bool],
    ):
        self._split, self._plan, self._reader, self._ahead = split, plan, reader, ahead
        self._seed, self._decodes = seed, decodes
        self._reading: deque = deque()
        self._suspects: set[int] = set()

    def __next__(self) -> Fed:
        """:raises StopIteration: the plan is at its end.

        :raises UserError: a picture and all that should replace it are bad.
        """
        if self._reader is None:
            rows = next(self._plan)
            return Fed(rows, rows.rows, self._split.pixels[rows.rows])
        while len(self._reading) < self._ahead and (rows := next(self._plan, None)) is not None:
            self._reading.append((rows, self._reader.ahead(rows.rows)))
        if not self._reading:
            raise StopIteration
        rows, futures = self._reading.popleft()
        fed = Fed(rows, rows.rows.copy(), [each for future in futures for each in future.result()])
        for place, row in enumerate(rows.rows):
            self._check(fed, place, int(row), fed.content[place])
        return fed

    def reject(self, fed: Fed, places: list[int]) -> None:
        """Replaces pictures that DALI could not decode."""
        for place in places:
            self._suspects.add(int(fed.rows[place]))
            self._replace(fed, place, "cannot be decoded")

    def _check(self, fed: Fed, place: int, row: int, content: np.ndarray | Unreadable) -> None:
        """Puts a picture into its place, or another one."""
        fed.rows[place], fed.content[place] = row, content
        if isinstance(content, Unreadable):
            self._replace(fed, place, content.reason)
        elif row in self._suspects:
            epoch = int(fed.plan.epochs[place])
            if not self._decodes(content, row, epoch, fed.plan):
                self._replace(fed, place, "cannot be decoded")

    def _replace(self, fed: Fed, place: int, reason: str) -> None:
        bad = int(fed.rows[place])
        fed.faults.append(Fault(bad, self._split.path(bad), reason))
        attempt = fed.tried.get(place, 0)
        if attempt == TRIES:
            raise UserError(
                f"{self._split.root}: {TRIES} pictures drawn one after the other cannot be read, the last "
                f"one {self._split.path(bad)}: {reason}; is the file system there?"
            )
        fed.tried[place] = attempt + 1
        original, epoch = fed.plan.rows[place : place + 1], fed.plan.epochs[place : place + 1]
        drawn = draws.uniform(TRIES, original, epoch, self._seed, draws.REPLACE)[0, attempt]
        row = int(drawn * len(self._split))
        self._check(fed, place, row, self._reader.read(row))
