"""What the tests marked ``gpu`` share: each runs on a GPU, and most on a CPU too, in the slow rounds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import quick_config, torchrun

from pipeline.config import Loading, Pictures
from pipeline.data.batches import Batch, training_rows
from pipeline.data.index import Split, open_index
from pipeline.data.loader import Loader
from pipeline.data.order import Order
from pipeline.monitor.metrics import read_rows
from pipeline.train import run
from pipeline.train.ranks import join

DEVICES = [pytest.param("cuda", marks=pytest.mark.gpu), pytest.param("cpu", marks=pytest.mark.slow)]
GPU = DEVICES[:1]
"""Of tests that the CPU has by other names, or that take minutes there."""
on_devices = pytest.mark.parametrize("device", DEVICES)
SMALL = Pictures(size=32, crop="pad", pad=4, eval_resize=None)
"""Raw pictures of 32 pixels: nothing is decoded or scaled."""


def of(device: str) -> torch.device:
    """With its number, as a rank has it."""
    return torch.device("cuda", 0) if device == "cuda" else torch.device("cpu")


def loader(split: Split, pictures: Pictures, device: str, **how) -> Loader:
    """:param how: ``dtype``, ``channels_last``; and of ``Loading``."""
    form = {"channels_last": how.pop("channels_last", True), "dtype": how.pop("dtype", torch.float32)}
    return Loader(split, pictures, Loading(threads=2, **how), of(device), **form)


def batches(given: Loader, batch: int, start: int, stop: int, seed: int = 8) -> list[Batch]:
    """Of training, steps ``start`` to ``stop`` - 1."""
    order = Order(len(given.split), batch, seed)
    return list(given.training(training_rows(order, 0, 1, 1, start, stop), batch, seed))


def pixels(images: torch.Tensor, pictures: Pictures) -> np.ndarray:
    """(b, 3, S, S) normalised, on any device, to (b, S, S, 3) in 0..255."""
    mean, std = (torch.tensor(values) for values in (pictures.mean, pictures.std))
    return ((images.cpu().float().permute(0, 2, 3, 1) * std + mean) * 255).numpy()


def rows_of(index: Path, folder: Path, device: str, split: str, **changes) -> list[dict]:
    """A run's rows of metrics, of one split."""
    config = quick_config(index, folder, train__device=device, **changes)
    with join(device) as ranks:
        run(config, ranks)
    return [row for row in read_rows(config.folder / "metrics.jsonl") if row["split"] == split]


def train_split(index: Path) -> Split:
    return open_index(index).split("train")


def one_rank(device: str, *words: str) -> None:
    """A real ``torchrun`` of one rank, to its good end: NCCL on a GPU, gloo on a CPU."""
    process = torchrun(1, *words, gpu=device == "cuda")
    try:
        _, errors = process.communicate(timeout=250)
    finally:
        if process.poll() is None:
            process.terminate()  # torchrun ends its rank
            process.communicate(timeout=60)
    assert process.returncode == 0, errors
