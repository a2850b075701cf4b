"""End to end: ``launch.train`` itself on photographs, with the loader's best setting; its own metrics."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from pipeline.bench.gpu import loader
from pipeline.bench.gpu.plan import Plan
from pipeline.bench.gpu.rows import every, trained
from pipeline.bench.process import end, last_line, program, wait
from pipeline.bench.ratios import Spread

SKIPPED = 2
"""First rows: the queue is filled, kernels are chosen."""
LEAST = 60.0
"""Seconds with which it may still be begun."""


def run(plan: Plan, before: dict[str, Any], until: float, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """``rate``, pictures/s of rows as {median, low, high}; shares of the time, medians; the ``case``."""
    if before.get("complete"):
        return
    best = loader.best(found.get("loader", {}))
    if best is None:
        yield {"left": "the loader alone, whose best setting it takes, was not measured"}
        return
    if plan.gpu and until - time.time() < LEAST:
        yield {"left": f"no time: needs {LEAST:.0f} s"}
        return
    folder = plan.folder("whole")
    shutil.rmtree(folder / "runs", ignore_errors=True)
    config = write_config(plan, folder, best)
    log = folder / "train.log"
    with log.open("w") as told:
        child = program(["-m", "launch.train", str(config)], told)
        try:
            with suppress(subprocess.TimeoutExpired):
                wait(child, until - time.time())
        finally:
            end(child)
    rows = trained(every(folder / "runs" / "whole"))
    if len(rows) <= SKIPPED:
        raise RuntimeError(f"launch.train: {last_line(log.read_text(errors='replace')) or 'no time'}")
    yield figures(rows) | {"case": best["name"], "complete": True}


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a run's rows after the first ones."""
    kept = rows[SKIPPED:]
    rates = [row["images_per_s"] for row in kept]
    shares = ("data_wait", "forward", "backward", "communication", "optimizer")
    told: dict[str, Any] = {"rate": asdict(Spread.of(rates)), "rates": rates}
    return told | {name: Spread.of([row[name] for row in kept]).median for name in shares}


def write_config(plan: Plan, folder: Path, best: dict[str, Any]) -> Path:
    sizes = plan.sizes
    loading = {"threads": best["threads"], "hardware_load": best["hardware"]}
    tree = {
        "name": "whole",
        "runs": str(folder / "runs"),
        "data": {
            "index": str(plan.folder("pictures") / best["how"]),
            "val": None,
            "pictures": {"size": sizes.size, "eval_resize": None},
            "loading": loading,
        },
        "model": {"name": sizes.model},
        "optim": {"lr": 0.1, "schedule": "constant", "warmup": 1.0},
        "train": {
            "batch": sizes.batch,
            "steps": sizes.whole_steps,
            "precision": plan.precision,
            "compile": plan.gpu,
            "device": plan.device,
        },
        "checkpoint": {"every": 1e6, "best": False},
        "monitor": {"wandb": False, "samples": 0, "log_every": sizes.whole_every},
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file
