"""How one round is measured, the same for everybody: batches counted between two edges, after a warm-up.

Nothing beyond the standard library is imported here: the round may run in a rival's own interpreter.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.bench.process import named

LOOKED_AT = 8
"""First batches whose pixels are looked at, outside the measured time."""
REPEATED = 2_000_000
"""Pictures in an epoch, at least: small sets are repeated, so that no epoch ends in a round. At 2,000
pictures a pause between epochs would weigh 600 times as much as on ImageNet."""


Entrant = TypeVar("Entrant")


@dataclass(frozen=True)
class Setting:
    """What every contestant of a round is told.

    :ivar pictures: folder of ``<class>/*.jpg``.
    :ivar mean: per channel, of pixels in 0..1; so ``std``.
    :ivar data: what was made of the pictures for this contestant (an index, a file), or the pictures.
    :ivar threads: worker threads or processes, and the cores that the whole process may use.
    :ivar prefetch: batches ahead, where a contestant says it per loader.
    :ivar warm_up: seconds that go unmeasured after the looked-at batches.
    """

    contestant: str
    pictures: str
    data: str
    batch: int
    size: int
    threads: int
    prefetch: int
    seed: int
    seconds: float
    warm_up: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Stream:
    """Batches without an end.

    :ivar pictures: how many different ones there are.
    :ivar batches: each has a length; of the first ones ``pixels`` (float tensors) are looked at.
    :ivar stride: batches that come at once, because so many workers make one each: the measured time
        spans a multiple of it.
    """

    pictures: int
    batches: Iterator[Any]
    stride: int = 1
    pixels: bool = True


def turns(entrants: Sequence[Entrant], number: int) -> Sequence[Entrant]:
    """In order, in every second round backwards."""
    return entrants[::-1] if number % 2 else entrants


def one_round(started: float, setting: dict[str, Any], stream: str) -> dict[str, Any]:
    """``measure`` of the stream that ``module:function`` makes of a ``Setting``."""
    setting = Setting(**setting)
    return measure(named(stream)(setting), setting.seconds, setting.warm_up, started)


def measure(stream: Stream, seconds: float, warm_up: float, started: float) -> dict[str, Any]:
    """The rate of a stream whose consumer does nothing but wait.

    The warm-up ends ``warm_up`` seconds after the ``LOOKED_AT``-th batch. By then start-up is over, and
    the batches made ahead are used up, because nobody works between them.

    :param started: on ``time.perf_counter``, when the process began to import its libraries.
    :return: pictures, seconds, batches and CPU seconds (of the process group) between two edges; mean
        and standard deviation of the looked-at pixels; seconds from ``started`` to the first batch.
    """
    batches = iter(stream.batches)
    looked, first = [], 0.0
    for number in range(LOOKED_AT):
        batch = next(batches)
        first = first if number else time.perf_counter() - started
        if stream.pixels:
            looked.append((float(batch.mean()), float((batch**2).mean())))
    _count(batches, warm_up, stream.stride)
    before = cpu_seconds()
    count, pictures, elapsed = _count(batches, seconds, stream.stride)
    used = cpu_seconds() - before
    mean = sum(one for one, _ in looked) / len(looked) if looked else None
    square = sum(one for _, one in looked) / len(looked) if looked else None
    return {
        "set": stream.pictures,
        "pictures": pictures,
        "batches": count,
        "seconds": elapsed,
        "cpu_seconds": used,
        "first_batch_s": first,
        "mean": mean,
        "std": None if mean is None else (square - mean**2) ** 0.5,
    }


def _count(batches: Iterator[Any], seconds: float, stride: int) -> tuple[int, int, float]:
    """Batches, pictures and seconds until at least ``seconds`` are over, in whole strides."""
    count = pictures = 0
    start = time.perf_counter()
    while True:
        pictures += len(next(batches))
        count += 1
        elapsed = time.perf_counter() - start
        if elapsed >= seconds and count % stride == 0:
            return count, pictures, elapsed


def cpu_seconds() -> float:
    """Spent so far by all living processes of this process's group: the child and its workers."""
    group, ticks = os.getpgrp(), 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()  # after the name: state, parent, group, ...
        except OSError:
            continue  # it has just ended
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
