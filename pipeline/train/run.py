"""One run from its config: open the pictures, claim the folder, train."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.claim import claim
from pipeline.config import TrainConfig, UserError, dump
from pipeline.data.index import Split, open_index
from pipeline.models import build
from pipeline.train.job import Job
from pipeline.train.loop import fit
from pipeline.train.plan import Plan
from pipeline.train.ranks import Ranks
from pipeline.train.weights import switches


def run(config: TrainConfig, ranks: Ranks) -> None:
    """Trains or continues the run of this config; does nothing if it is finished.

    :raises UserError: something in the config, the index or the run's folder is not right.
    :raises Preempted: the job was asked to stop, and has saved.
    """
    job = Job(config, ranks, **splits(config))
    with claimed(config.folder, ranks):
        fit(job)


def splits(config: TrainConfig) -> dict[str, Split | None]:
    """The config's train, val and test splits.

    :raises UserError: there is no index, or it has no such split.
    """
    index = open_index(config.data.index)
    named = {key: getattr(config.data, key) for key in ("train", "val", "test")}
    return {key: name and index.split(name, f"data.{key}") for key, name in named.items()}


@contextmanager
def claimed(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Keeps a second job out of a run's folder while this one lives.

    :raises UserError: on every rank, when another job holds the folder.
    """
    lock = claim(folder) if ranks.first else None
    try:
        if ranks.any(ranks.first and lock is None):
            raise UserError(f"{folder}: another job works in this folder; wait for it, or give another name")
        yield
    finally:
        if lock:
            lock.close()


def dry_run(config: TrainConfig, world: int | None = None) -> str:
    """The resolved config, after everything that can be checked without training was checked.

    :param world: ranks that will train; none = as torchrun says.
    :raises UserError: as ``run`` would.
    """
    pictures = splits(config)["train"]
    build(config.model.name, len(pictures.classes), **switches(config.model))
    world = world or int(os.environ.get("WORLD_SIZE", "1"))
    plan = Plan.of(config, len(pictures), world)
    told = f"# {len(pictures)} pictures, {plan.steps} steps, {plan.micro_batch} pictures per micro-batch"
    return f"{told} on each of {world} ranks\n{dump(config)}"
