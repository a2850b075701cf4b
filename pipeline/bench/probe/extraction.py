"""How fast features are had: against the loader alone and the forward pass alone, in turns."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.bench.made import picture_files
from pipeline.bench.photographs import make
from pipeline.bench.probe.made import random_backbone
from pipeline.bench.probe.plan import Plan
from pipeline.bench.ratios import Spread
from pipeline.config import Loading, Pictures
from pipeline.data.batches import Batch, Rows, evaluation_rows
from pipeline.data.index import open_index
from pipeline.data.loader import Loader
from pipeline.data.prepare import write_index
from pipeline.data.sources import Files, Source
from pipeline.progress import Bar
from pipeline.train.ranks import join
from pipeline.transfer.features import features


def count(plan: Plan) -> int:
    return 1


def run(plan: Plan, bar: Bar) -> Iterator[dict[str, Any]]:
    """Pictures/s of each, and the extraction's share of the slower of the other two, within each round."""
    bar.advance(0, note="extraction")
    pictures = plan.work / "extracted"
    make(plan.photographs, pictures, plan.extracted)
    told = plan.child(
        "extraction:rounds",
        folder=str(pictures),
        work=str(plan.work / "probe"),
        model=plan.model,
        size=plan.size,
        batch=plan.batch,
        count=plan.rounds,
    )["rounds"]
    shares = [one["features"] / min(one["loader"], one["forward"]) for one in told]
    rates = {name: asdict(Spread.of([one[name] for one in told])) for name in told[0]}
    bar.advance()
    yield rates | {"share": asdict(Spread.of(shares)), "told": told}


class Timed(Loader):
    """A loader that notes when each batch was asked for again; the first one is the start."""

    def evaluation(self, rows: Iterator[Rows], batch: int) -> Iterator[Batch]:
        for each in super().evaluation(rows, batch):
            times.append(time.perf_counter())
            yield each
        times.append(time.perf_counter())


times: list[float] = []


def rounds(
    started: float, folder: str, work: str, model: str, size: int, batch: int, count: int
) -> dict[str, Any]:
    """Pictures/s from the second batch to the last: starts are no part of a long extraction."""
    paths = [str(path.relative_to(folder)) for path in picture_files(Path(folder))]
    names = sorted({path.split("/")[0] for path in paths})
    labels = np.array([names.index(path.split("/")[0]) for path in paths])
    out = Path(work) / "extracted"
    write_index(Source("photographs", names, {"all": Files(Path(folder), paths, labels)}), out / "index")
    split, pictures = open_index(out / "index").split("all"), Pictures(size=size, eval_resize=size)
    backbone = random_backbone(model, torch.randn(64, 3, 64, 64))
    found = []
    with join("cpu") as ranks:
        loader = Timed(split, pictures, Loading(), ranks.device, channels_last=True)
        for _ in range(count):
            shutil.rmtree(out / "cache", ignore_errors=True)
            found.append(
                {
                    "loader": _rate(
                        lambda: [None for _ in loader.evaluation(_rows(split, batch), batch)], batch
                    ),
                    "forward": _forward(backbone.frozen(ranks.device), size, batch, len(split)),
                    "features": _rate(
                        lambda: features(backbone, loader, batch, out / "cache", ranks, "features"), batch
                    ),
                }
            )
    return {"rounds": found}


def _rows(split, batch: int) -> Iterator[Rows]:
    return evaluation_rows(len(split), batch, 0, 1)


def _rate(work, batch: int) -> float:
    """Pictures/s of all whole batches but the first."""
    times.clear()
    work()
    return (len(times) - 2) * batch / (times[-1] - times[1])


def _forward(model, size: int, batch: int, total: int) -> float:
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        model(images)
        begin, number = time.perf_counter(), max(1, total // batch - 1)
        for _ in range(number):
            model(images)
    return number * batch / (time.perf_counter() - begin)
