"""In the loader's processes: indexes of photographs are written, and batches are counted."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.bench.gpu.cases import Case, Found, work_off
from pipeline.bench.made import picture_files
from pipeline.bench.ours import ENDLESS
from pipeline.bench.ratios import Spread
from pipeline.bench.timing import cpu_seconds
from pipeline.config import Loading, Pictures
from pipeline.data.batches import Batch, training_rows
from pipeline.data.index import open_index
from pipeline.data.loader import Loader
from pipeline.data.order import Order
from pipeline.data.prepare import How, write_index
from pipeline.data.sources import Files, Source
from pipeline.train.ranks import join

WARM = 8
"""Batches that go unmeasured; what was made ahead is used up by then."""


def write(started: float, pictures: str, out: dict[str, str], classes: int) -> dict[str, int]:
    """An index of <class>/*.jpg with room for ``classes``, so that the network has the head it always has;
    packed where it is called so."""
    paths = [str(path.relative_to(pictures)) for path in picture_files(Path(pictures))]
    folders = sorted({path.split("/")[0] for path in paths})
    labels = np.array([folders.index(path.split("/")[0]) for path in paths], np.int64)
    names = [*folders, *(f"class {number}" for number in range(len(folders), classes))]
    source = Source("photographs", names, {"train": Files(Path(pictures), paths, labels)})
    for name, folder in out.items():
        write_index(source, Path(folder), How(pack=name == "packed"))
    return {"pictures": len(paths)}


def asked(started: float, cases: list[Case], until: float, device: str) -> dict[str, bool]:
    with join(device) as ranks:
        return work_off(cases, until, lambda case: rate_of(case, ranks.device))


def rate_of(case: Case, device: torch.device) -> Found:
    """Pictures/s, {median, low, high}; CPU seconds a second; seconds to the first batch."""
    begun = time.perf_counter()
    batches = stream(case, device)
    next(batches)
    _wait(device)
    first = time.perf_counter() - begun
    for _ in range(WARM):
        next(batches)
    rates, busy = [], []
    for _ in range(case["repeats"]):
        _wait(device)
        before, begun, count = cpu_seconds(), time.perf_counter(), 0
        while time.perf_counter() - begun < case["seconds"] or not count:
            count += len(next(batches).rows)
        _wait(device)
        passed = time.perf_counter() - begun
        rates.append(count / passed)
        busy.append((cpu_seconds() - before) / passed)
    batches.close()
    told: dict[str, Any] = {"rate": asdict(Spread.of(rates)), "rates": rates, "first_s": first}
    return told | {
        "cores_busy": max(busy),
        "hardware": case["hardware"],
        "threads": case["threads"],
        "how": case["how"],
    }


def stream(case: Case, device: torch.device) -> Iterator[Batch]:
    """Training batches as ``launch.train`` gets them."""
    split = open_index(case["index"]).split("train")
    loading = Loading(threads=case["threads"], hardware_load=case["hardware"])
    dtype = torch.bfloat16 if case["half"] else torch.float32
    loader = Loader(split, Pictures(size=case["size"]), loading, device, channels_last=True, dtype=dtype)
    order = Order(len(split), case["batch"], 0)
    return loader.training(training_rows(order, 0, 1, 1, 0, ENDLESS), case["batch"], 0)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":  # CUDA only
        torch.cuda.synchronize()
