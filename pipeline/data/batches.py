"""What a batch is: which rows it holds, planned on the host, and what comes out on the device."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.data.mix import Mix
from pipeline.data.order import Order


@dataclass(frozen=True)
class Rows:
    """What one batch holds: its rows of the split, their epochs, and which of them count."""

    rows: np.ndarray  # (b,) int64
    epochs: np.ndarray  # (b,) int64
    weight: np.ndarray  # (b,) float32; 0 for a row that only fills up the last batch of an evaluation
    side: int | None = None  # of the square training pictures, pixels; none = the config's size
    first: int = 0  # place of the first row in the step's global batch


@dataclass(frozen=True)
class Fault:
    """A picture that could not be shown, and why."""

    row: int
    path: str
    reason: str


@dataclass(frozen=True)
class Batch:
    images: torch.Tensor  # (b, 3, S, S), normalised, on the device, in the loader's dtype
    labels: torch.Tensor  # (b,) int64, or (b, C) int8 of several labels a picture; on the device
    weight: torch.Tensor  # (b,) float32, on the device; 0 where the picture does not count
    rows: np.ndarray  # (b,) int64, on the host
    mix: Mix | None = None
    """With which pictures these were mixed, if they were."""
    faults: tuple[Fault, ...] = ()
    """Pictures that should have been here and could not be read or decoded."""
    receipt: int = 0
    """What stands for the pictures, their places and what was done to them; of training batches."""


def training_rows(
    order: Order,
    rank: int,
    world: int,
    accumulate: int,
    start: int,
    stop: int,
    side: Callable[[int], int] | None = None,
) -> Iterator[Rows]:
    """The micro-batches of one rank for steps start..stop-1, ``accumulate`` a step.

    A rank's pieces lie side by side in the global batch, so that the ranks' batches one after the other
    are the global batch in order, whatever the number of ranks.

    :param side: of the pictures at a step, pixels; none = always the config's size.
    """
    for step in range(start, stop):
        for micro in range(accumulate):
            piece = rank * accumulate + micro
            rows, epochs = order.piece(step, piece, world * accumulate)
            ones = np.ones(len(rows), np.float32)
            yield Rows(rows, epochs, ones, side and side(step), piece * len(rows))


def evaluation_rows(n: int, batch: int, rank: int, world: int, first: int = 0) -> Iterator[Rows]:
    """Every row of first..n-1 once over all ranks; all ranks get equally many batches of equal size.

    The places beyond n are filled with row 0 at weight 0: ranks stay in step, and shapes never change.
    """
    for start in range(first, n, batch * world):
        rows = np.arange(start + rank * batch, start + (rank + 1) * batch)
        counts = rows < n
        yield Rows(np.where(counts, rows, 0), np.zeros(batch, np.int64), counts.astype(np.float32))
