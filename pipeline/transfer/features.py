"""Every picture passes the frozen network once; its features are kept in a file and used again.

``features/<key>.npy``, (N, D) float32, with ``<key>.json`` beside it. The key is a hash of checkpoint,
preprocessing and pictures, so a changed one finds nothing; the file's own hash is checked on reuse, so a
damaged one is computed again.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from pipeline.config import UserError
from pipeline.data.batches import Fault, evaluation_rows
from pipeline.data.loader import Loader
from pipeline.files import partial_name, sha256, write_whole
from pipeline.progress import track
from pipeline.train.ranks import Ranks
from pipeline.transfer.backbone import Backbone, Frozen


def features(
    backbone: Backbone, loader: Loader, batch: int, folder: Path, ranks: Ranks, title: str = "features"
) -> np.ndarray:
    """Features of all pictures of the loader's split, from the cache or computed and cached.

    :param batch: pictures per forward pass of a rank.
    :return: (N, D) float32, memory-mapped; the same file on every rank.
    :raises UserError: on all ranks, when a picture cannot be shown.
    """
    about = {
        "checkpoint": backbone.digest,
        "pictures": loader.split.fingerprint,
        "preprocessing": preprocessing(loader),
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    file = folder / f"{key}.npy"
    if not ranks.any(ranks.first and not _intact(file)):
        return np.load(file, mmap_mode="r", allow_pickle=False)
    folder.mkdir(parents=True, exist_ok=True)
    _extract(backbone.frozen(ranks.device), loader, batch, file, ranks, title)
    if ranks.first:
        about["sha256"] = sha256(file)
        write_whole(file.with_suffix(".json"), json.dumps(about, indent=1, sort_keys=True).encode())
    ranks.barrier()
    return np.load(file, mmap_mode="r", allow_pickle=False)


def preprocessing(loader: Loader) -> dict:
    """What of the config decides the network's input in evaluation."""
    used = ("eval_resize", "interpolation", "mean", "std")
    settings = loader.pictures.model_dump(include=set(used))
    return settings | {"side": loader.pictures.evaluation_size}


def _extract(model: Frozen, loader: Loader, batch: int, file: Path, ranks: Ranks, title: str) -> None:
    """All ranks compute, the first one writes: several nodes never write into one mapped file."""
    n = len(loader.split)
    partial = partial_name(file)
    kept: np.memmap | None = None
    batches = loader.evaluation(evaluation_rows(n, batch, ranks.rank, ranks.world), batch)
    total = -(-n // (batch * ranks.world))
    faults: list[Fault] = []
    # A GPU's convolutions would round to TF32's ten bits by default.
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        for number, each in enumerate(track(batches, title, total, "batches", ranks.first)):
            faults += each.faults
            found = model(each.images).float().contiguous().cpu()  # (b, D)
            parts = [torch.empty_like(found) for _ in range(ranks.world)] if ranks.first else None
            dist.gather(found, parts)
            if ranks.first:
                if kept is None:
                    shape = (n, found.shape[1])
                    kept = np.lib.format.open_memmap(partial, "w+", np.float32, shape)
                together = torch.cat(parts).numpy()  # (world * b, D): the ranks' rows lie side by side
                start = number * batch * ranks.world
                kept[start : start + len(together)] = together[: n - start]
    refuse([fault for part in ranks.gather(faults) for fault in part])
    if ranks.first:
        kept.flush()
        os.replace(partial, file)


def refuse(faults: list[Fault]) -> None:
    """A transfer result is of all pictures or none.

    :raises UserError: there are faults.
    """
    if faults:
        raise UserError(
            f"{faults[0].path}: {faults[0].reason} ({len({fault.row for fault in faults})} such pictures); "
            "launch.prepare --verify leaves them out"
        )


def _intact(file: Path) -> bool:
    try:
        about = json.loads(file.with_suffix(".json").read_text())
        return about["sha256"] == sha256(file)
    except (OSError, ValueError, KeyError):
        return False
