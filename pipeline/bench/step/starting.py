"""How long ``launch.train`` takes from the command to its first step, and with what: see ``start``."""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from PIL import Image

from pipeline.bench.contestants import BY_NAME
from pipeline.bench.made import make
from pipeline.bench.process import told, torchrun
from pipeline.bench.ratios import Spread
from pipeline.bench.step.plan import LIMIT, Plan
from pipeline.progress import Bar


@dataclass(frozen=True)
class Case:
    """:ivar words: for ``launch.train``. :ivar ranks: under torchrun; 0 = without it.
    :ivar once: run once, for it takes long; else as often as the plan says.
    """

    name: str
    title: str
    words: tuple[str, ...] = ()
    ranks: int = 0
    once: bool = False


COMPILED = ("train.compile=true",)
CASES = (
    Case("python", "python -m launch.train"),
    Case("torchrun", "torchrun, two ranks", ranks=2),
    Case("wandb", "with W&B, offline", ("monitor.wandb=true",), once=True),
    Case("compile", "with train.compile, the first time", COMPILED, once=True),
    Case("compile-again", "with train.compile, again", COMPILED, once=True),
)
PICTURES, SIDE = 256, 64
"""Drawn JPEGs that are trained on, and their sides."""


def count(plan: Plan) -> int:
    return sum(1 if case.once else plan.runs for case in CASES)


def run(plan: Plan, bar: Bar) -> Iterator[dict[str, Any]]:
    """Of the first workload: of each case ``total`` seconds and the medians of ``parts``, in their order.

    :raises RuntimeError: a run did not come to its first step; with all that it said.
    """
    first = plan.workloads[0]
    with plan.folder() as folder:
        config = write_config(plan, folder)
        compiled = str(folder / "compiled")  # empty at first
        times: dict[str, list[dict[str, float]]] = {case.name: [] for case in CASES}
        for number in range(plan.runs):
            for case in CASES:
                if number and case.once:
                    continue
                bar.advance(0, note=f"start: {case.title}")
                times[case.name].append(start(config, case, number, compiled))
                bar.advance()
    about = [asdict(case) | figures(times[case.name]) | {"told": times[case.name]} for case in CASES]
    yield asdict(first) | {"cases": about}


def start(config: Path, case: Case, number: int, compiled: str) -> dict[str, float]:
    """Seconds of each part of one start, in their order.

    :param compiled: folder for what is compiled.
    """
    words = [str(config), f"name={case.name}-{number}", *case.words]
    command = [sys.executable, *torchrun(case.ranks), "-m", "pipeline.bench.step.start", str(time.time())]
    found = told([*command, *words], LIMIT, TORCHINDUCTOR_CACHE_DIR=compiled, WANDB_MODE="offline")
    if "failed" in found:
        raise RuntimeError(f"launch.train did not start: {found['failed']}\n{found['errors']}")
    return found


def write_config(plan: Plan, folder: Path) -> Path:
    """A config, and an index of drawn JPEGs."""
    first, draws = plan.workloads[0], np.random.default_rng(0)
    for number in range(PICTURES):
        path = folder / "pictures" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path)
    index = make(BY_NAME["files"], folder / "pictures", folder, None)
    if index.failed:
        raise RuntimeError(f"launch.prepare: {index.failed}")
    tree = {
        "name": "start",
        "runs": str(folder / "runs"),
        "data": {
            "index": str(index.data),
            "val": None,
            "pictures": {"size": first.size, "eval_resize": None},
        },
        "model": {"name": first.model},
        "optim": {"lr": 0.1},
        "train": {"batch": first.batch, "epochs": 1000.0, "device": plan.device, "precision": plan.precision},
        "monitor": {"wandb": False},
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def figures(times: list[dict[str, float]]) -> dict[str, Any]:
    totals = [sum(one.values()) for one in times]
    return {
        "total": asdict(Spread.of(totals)),
        "parts": {part: median(one[part] for one in times) for part in times[0]},
    }
