"""Features to fit: of real photographs, by a real forward pass of a network with random weights.

The pictures: each class is a place of a photograph, its pictures are windows near it, so that neighbouring
classes overlap and a penalty has something to do. The network's batch norms have seen the pictures.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from pipeline.config import Loading, Model, Pictures
from pipeline.data.index import open_index
from pipeline.data.loader import Loader
from pipeline.data.prepare import write_index
from pipeline.data.sources import Pixels, Source
from pipeline.models import build
from pipeline.train.ranks import join
from pipeline.transfer.backbone import Backbone
from pipeline.transfer.features import features

ACROSS, DOWN = 4, 3
"""Places of a photograph."""
SEEN = 512
"""Pictures that batch norms see."""


def make(
    started: float,
    folder: str,
    photographs: list[str],
    counts: dict[str, int],
    classes: int,
    side: int,
    model: str,
) -> dict[str, Any]:
    """``folder/NAME.npz`` for each of ``counts``: features (N, D), labels (N,); what they are like."""
    out = Path(folder)
    names = [f"{number:03d}" for number in range(classes)]
    splits = {
        name: _windows(photographs, classes, count, side, seed)
        for seed, (name, count) in enumerate(counts.items())
    }
    write_index(Source("windows", names, splits), out / "index")
    index, pictures = open_index(out / "index"), Pictures(size=side, crop="pad", eval_resize=None)
    seen = torch.from_numpy(np.ascontiguousarray(splits["train"].pixels[:SEEN])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (pictures.mean, pictures.std))
    backbone = random_backbone(model, (seen - mean) / std)
    with join("cpu") as ranks:
        for name in counts:
            loader = Loader(index.split(name), pictures, Loading(), ranks.device, channels_last=True)
            found = features(backbone, loader, 64, out / "cache", ranks, name)
            np.savez(out / f"{name}.npz", features=found, labels=loader.split.labels)
    energy = np.linalg.svd(found - found.mean(0), compute_uv=False) ** 2
    return {"width": found.shape[1], "rank": float(energy.sum() ** 2 / (energy**2).sum())}


def random_backbone(name: str, seen: torch.Tensor) -> Backbone:
    """As it is drawn, with batch-norm statistics of ``seen``, (N, 3, S, S)."""
    torch.manual_seed(0)
    model = build(name, 1000).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over batches
    with torch.inference_mode():
        for batch in seen.split(64):
            model(batch)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()
    return Backbone(Path("random"), digest, Model(name=name), state, 1000)


def _windows(photographs: list[str], classes: int, count: int, side: int, seed: int) -> Pixels:
    """``count`` windows, evenly over the classes, in random order."""
    draws = np.random.default_rng([classes, seed])
    labels = draws.permutation(np.arange(count) % classes)
    pixels = np.empty((count, side, side, 3), np.uint8)
    for number, path in enumerate(photographs):
        with Image.open(path) as opened:
            whole = opened.convert("RGB")
        for row in np.flatnonzero(labels % len(photographs) == number):
            pixels[row] = _window(whole, int(labels[row]) // len(photographs), side, draws)
    return Pixels(pixels, labels.astype(np.int64))


def _window(whole: Image.Image, place: int, side: int, draws: np.random.Generator) -> np.ndarray:
    """A square near a place, of about its size, anywhere half a place off."""
    wide, tall = whole.width / ACROSS, whole.height / DOWN
    edge = min(wide, tall) * draws.uniform(0.6, 1.2)
    column, row = place % ACROSS, place // ACROSS % DOWN
    left = np.clip((column + draws.uniform(0, 1)) * wide - edge / 2, 0, whole.width - edge)
    top = np.clip((row + draws.uniform(0, 1)) * tall - edge / 2, 0, whole.height - edge)
    box = (left, top, left + edge, top + edge)
    return np.asarray(whole.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=2))
