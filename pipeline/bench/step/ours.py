"""Our side of the benchmark: ``launch.train``'s loop, on a batch that is there already."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline.bench.step.guests import GUESTS
from pipeline.bench.step.parts import parts
from pipeline.bench.step.relay import Relay
from pipeline.bench.step.setting import Setting
from pipeline.data.batches import Batch, Rows
from pipeline.data.index import Split
from pipeline.monitor.metrics import read_rows
from pipeline.train import Job, checkpoint, fit
from pipeline.train.ranks import join


def rounds(started: float, setting: dict[str, Any], with_parts: bool = False) -> dict[str, Any] | None:
    """Our loop and its guests, by turns, in this process; of several ranks the first one tells.

    :param with_parts: what the parts of our step take, each measured alone, too.
    :return: ``rounds`` and ``failed_guests``, see ``Relay``; how many ``rows`` our loop wrote, by split;
        ``checkpoint_bytes``; ``parts``.
    """
    told = Setting(**setting)
    with join(told.device, hang_timeout=900.0) as ranks:
        config = told.config(ranks.world)
        batch = steady_batch(told, ranks.device)
        guests = {name: partial(GUESTS[name].make, told, ranks.device) for name in told.guests}
        relay = Relay(told, ranks.device, guests)
        fit(Steady(config, ranks, split(told, config.train.batch), relay=relay, batch=batch))
        if not ranks.first:
            return None
        return {
            "rounds": relay.rounds,
            "failed_guests": relay.failed,
            "rows": Counter(row["split"] for row in read_rows(config.folder / "metrics.jsonl")),
            "checkpoint_bytes": checkpoint.latest(config.folder).stat().st_size,
            "parts": parts(told, config, ranks) if with_parts else {},
        }


@dataclass(frozen=True)
class Steady(Job):
    """A job whose loader has one batch for ever, and lets the relay run before it gives it."""

    relay: Relay | None = None
    batch: Batch | None = None

    def loader(self, split: Split) -> "Steady":
        return self

    def training(self, rows: Iterator[Rows], batch: int, seed: int) -> Iterator[Batch]:
        """In the place of ``Loader.training``."""
        assert batch == len(self.batch.images)
        return self.relay.batches(self.batch)


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
