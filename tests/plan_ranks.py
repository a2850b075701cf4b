"""What test_plan.py holds launch.plan against: ``torchrun ... plan_ranks.py CONFIG ENGINE FILE``.

The first rank leaves in FILE the bytes of all tensors that live between two steps, and by collective those
of one step.
"""

import gc
import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from pipeline.config import TrainConfig, load
from pipeline.data.batches import Batch
from pipeline.models import build
from pipeline.train.engine import build_engine
from pipeline.train.ranks import join

COLLECTIVES = {"all_reduce": 0, "all_gather_into_tensor": 0, "reduce_scatter_tensor": 1}
"""By name, where the tensor of the whole size stands among the arguments."""


def count_calls(into: Counter[str]) -> None:
    """Of every later call; before DeepSpeed is imported, which takes hold of them."""

    def counted(name: str, place: int, original: Callable) -> Callable:
        def call(*words, **keys):
            into[name] += [*words, *keys.values()][place].nbytes
            return original(*words, **keys)

        return call

    for name, place in COLLECTIVES.items():
        setattr(dist, name, counted(name, place, getattr(dist, name)))


def living() -> int:
    """Bytes of all tensors that Python knows of, each storage once."""
    gc.collect()
    storages = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some modules warn when they are looked at
        for each in gc.get_objects():
            if isinstance(each, torch.Tensor) and not each.is_meta:
                storages[each.untyped_storage()._cdata] = each.untyped_storage().nbytes()
    return sum(storages.values())


def main(path: str, engine: str, file: str) -> None:
    sent: Counter[str] = Counter()
    count_calls(sent)
    words = [] if engine == "ddp" else ["engine=deepspeed", f"deepspeed.stage={engine}"]
    config = load(TrainConfig, path, words)
    with join("cpu") as ranks:
        before = living()
        running = build_engine(build(config.model.name, 10, width=config.model.width), config, ranks)
        count = config.train.batch // ranks.world
        running.prime((count, 3, 32, 32))
        labels, rows = torch.zeros(count, dtype=torch.long), np.arange(count)
        for _ in range(2):
            sent.clear()
            running.step([Batch(torch.randn(count, 3, 32, 32), labels, torch.ones(count), rows)], 0.01)
        if ranks.first:
            Path(file).write_text(json.dumps({"living": living() - before, "sent": sent}))


if __name__ == "__main__":
    main(*sys.argv[1:])
