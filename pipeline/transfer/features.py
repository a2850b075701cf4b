"""Every picture passes the frozen network once; its features are kept in a file and used again.

``features/<key>.npy``, (N, D) float32, kept as ``cache`` says. The key is a hash of checkpoint,
preprocessing, pictures, depth and precision, so a changed one finds nothing. All depths that are asked for
and not there come from one pass; another resolution is another loader, and another pass.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from pipeline.config import UserError
from pipeline.data.batches import Fault, evaluation_rows
from pipeline.data.loader import Loader
from pipeline.progress import Bar
from pipeline.train.ranks import Ranks
from pipeline.transfer.backbone import LAST, Backbone, Frozen
from pipeline.transfer.cache import Growing, kept


def features(
    backbone: Backbone, loader: Loader, batch: int, folder: Path, ranks: Ranks, title: str = "features"
) -> np.ndarray:
    """Features in front of the head; see ``at_depths``. (N, D) float32, memory-mapped."""
    return at_depths(backbone, loader, batch, folder, ranks, title)[LAST]


def at_depths(
    backbone: Backbone,
    loader: Loader,
    batch: int,
    folder: Path,
    ranks: Ranks,
    title: str = "features",
    depths: Sequence[str] = (LAST,),
) -> dict[str, np.ndarray]:
    """Features of all pictures of the loader's split, from the cache or computed and cached.

    :param batch: pictures per forward pass of a rank.
    :param depths: "stage1", ...: a stage's output, averaged over positions; ``LAST``: what the head sees.
    :return: by depth (N, D) float32, memory-mapped; the same file on every rank.
    :raises UserError: on all ranks, when a picture cannot be shown or the network has no such depth.
    :raises Preempted: the job was asked to stop; the next one goes on where it was.
    """
    abouts = {depth: _about(backbone, loader, depth) for depth in depths}
    files = {depth: folder / f"{_key(about)}.npy" for depth, about in abouts.items()}
    missing = [depth for depth in depths if ranks.first and kept(files[depth]) is None]
    missing = ranks.gather(missing)[0]
    if missing:
        model = backbone.frozen(ranks.device)
        if unknown := [depth for depth in depths if depth not in model.depths]:
            raise UserError(f"depth {unknown[0]!r}: the network has {', '.join(model.depths)}")
        folder.mkdir(parents=True, exist_ok=True)
        targets = {depth: (files[depth], abouts[depth]) for depth in missing}
        _extract(model, loader, batch, targets, ranks, title)
    ranks.barrier()
    return {depth: np.load(file, mmap_mode="r", allow_pickle=False) for depth, file in files.items()}


def preprocessing(loader: Loader) -> dict:
    """What of the config decides the network's input in evaluation."""
    used = ("eval_resize", "interpolation", "mean", "std")
    settings = loader.pictures.model_dump(include=set(used))
    if loader.pictures.eval_resize is None and loader.pictures.pad_colour != "black":
        settings["pad_colour"] = loader.pictures.pad_colour  # around a picture smaller than the window
    return settings | {"side": loader.pictures.evaluation_size}


def without_tf32() -> AbstractContextManager[None]:
    """Within it a GPU's convolutions are float32's: by default they round to TF32's ten bits."""
    # What flags() is not given it sets to a default of its own, which for cuDNN is off.
    return torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled, benchmark=torch.backends.cudnn.benchmark, allow_tf32=False
    )


def refuse(faults: list[Fault]) -> None:
    """A transfer result is of all pictures or none.

    :raises UserError: there are faults.
    """
    if faults:
        raise UserError(
            f"{faults[0].path}: {faults[0].reason} ({len({fault.row for fault in faults})} such pictures); "
            "launch.prepare --verify leaves them out"
        )


def _about(backbone: Backbone, loader: Loader, depth: str) -> dict:
    return {
        "checkpoint": backbone.digest,
        "pictures": loader.split.fingerprint,
        "preprocessing": preprocessing(loader),
        "depth": depth,
        "precision": "float32",
    }


def _key(about: dict | list) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def _extract(
    model: Frozen,
    loader: Loader,
    batch: int,
    targets: dict[str, tuple[Path, dict]],
    ranks: Ranks,
    title: str,
) -> None:
    """All ranks compute, the first one writes: several nodes never write into one file."""
    n, depths = len(loader.split), list(targets)
    growing = None
    if ranks.first:
        folder = next(iter(targets.values()))[0].parent
        growing = Growing(folder / f"{_key([about for _, about in targets.values()])}.partial", depths, n)
    start = ranks.gather(growing.rows if growing else 0)[0]
    faults: list[Fault] = []
    bad = False
    bar = Bar(title, n, "pictures", ranks.first, start)
    ranks.at(title, 0)
    with growing or nullcontext(), torch.inference_mode(), without_tf32(), bar:
        rows = evaluation_rows(n, batch, ranks.rank, ranks.world, start)
        for step, each in enumerate(loader.evaluation(rows, batch) if start < n else (), 1):
            ranks.at("agreeing")
            ranks.stop_if_asked(f"in {title}")
            faults += each.faults
            bad = bad or ranks.any(bool(faults))
            count = min(batch * ranks.world, n - start)
            ranks.at(title)
            if not bad:  # else the others are only looked for
                found = model.at(each.images, depths)
                ranks.at("communication")
                together = _together(found, ranks)
                if growing:
                    growing.append(dict(zip(depths, (each[:count] for each in together), strict=True)))
            start += count
            bar.advance(count)
            ranks.at(title, step)
        ranks.at("keeping features", long=True)
        if growing and not bad:
            growing.finish(targets)
        elif growing:
            growing.discard()
    refuse([fault for part in ranks.gather(faults) for fault in part])


def _together(found: list[torch.Tensor], ranks: Ranks) -> list[np.ndarray]:
    """Each (b, D) as (world * b, D) on the first rank, the ranks' rows side by side; nothing on others."""
    widths = [each.shape[1] for each in found]
    mine = torch.cat([each.float() for each in found], 1).contiguous().cpu()
    parts = [torch.empty_like(mine) for _ in range(ranks.world)] if ranks.first else None
    dist.gather(mine, parts)
    return [each.numpy() for each in torch.cat(parts).split(widths, 1)] if ranks.first else []
