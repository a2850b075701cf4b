"""Our side of the benchmark: ``launch.train``'s loop as it is, on a batch that is there already.

The loop asks for its next batch when its step is done, whatever it did besides; so what passes between two
of its questions is a whole step of ``launch.train``.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline.bench.step.baton import Baton
from pipeline.bench.step.parts import parts
from pipeline.bench.step.setting import WARM, Setting
from pipeline.bench.step.watch import Watch
from pipeline.data.batches import Batch, Rows
from pipeline.data.index import Split
from pipeline.monitor.metrics import read_rows
from pipeline.train import Job, checkpoint, fit
from pipeline.train.ranks import join

HANG = 3600.0
"""Seconds that our loop may wait for its turn: others compile and train meanwhile."""


def asked(started: float, setting: dict[str, Any], with_parts: bool = False) -> dict[str, Any] | None:
    """Takes turns with other contestants. Of each turn, what a ``Watch`` told is told, and ``first``, the
    number of the turn's first measured step.

    :param with_parts: what the parts of our step take, each measured alone, too.
    :return: how many ``rows`` our loop wrote, by split; ``checkpoint_bytes``; ``parts``. Of several ranks
        the first one tells.
    """
    told = Setting(**setting)
    with join(told.device, hang_timeout=HANG) as ranks:
        config = told.config(ranks.world)
        pictures = split(told, config.train.batch)
        batch, baton = steady_batch(told, ranks.device), Baton(ranks.first, ranks.any)
        fit(Steady(config, ranks, pictures, setting=told, baton=baton, batch=batch))
        if not ranks.first:
            return None
        return {
            "rows": Counter(row["split"] for row in read_rows(config.folder / "metrics.jsonl")),
            "checkpoint_bytes": checkpoint.latest(config.folder).stat().st_size,
            "parts": parts(told, config, ranks) if with_parts else {},
        }


@dataclass(frozen=True)
class Steady(Job):
    """A job whose loader has one batch for ever, and gives it when the baton comes by."""

    setting: Setting | None = None
    baton: Baton | None = None
    batch: Batch | None = None

    def loader(self, split: Split) -> "Steady":
        return self

    def training(self, rows: Iterator[Rows], batch: int, seed: int) -> Iterator[Batch]:
        """In the place of ``Loader.training``."""
        for _ in range(WARM):
            yield self.batch
        for number, _ in enumerate(self.baton):
            watch = Watch(self.ranks.device)
            yield self.batch
            for _ in range(self.setting.steps):
                with watch:
                    yield self.batch
            self.baton.tell(watch.told() | {"first": self.setting.first(number)})
        yield self.batch  # nobody asks for another after the last step: it is not measured


def steady_batch(setting: Setting, device: torch.device) -> Batch:
    """Noise (b, 3, S, S), channels last, in the loop's precision, with labels (b,) drawn evenly."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(setting.batch, 3, setting.size, setting.size, generator=draws)
    labels = torch.randint(setting.classes, (setting.batch,), generator=draws)
    images = images.to(device, setting.dtype(device), memory_format=torch.channels_last)
    rows = np.arange(setting.batch)
    return Batch(images, labels.to(device), torch.ones(setting.batch, device=device), rows)


def split(setting: Setting, count: int) -> Split:
    """As many pictures as a global batch has, that nobody reads."""
    table = pa.table({"path": [f"{row}.jpg" for row in range(count)], "label": np.zeros(count, np.int32)})
    classes = [str(number) for number in range(setting.classes)]
    return Split("train", classes, Path("."), table, [], decoded=False, fingerprint="none")
