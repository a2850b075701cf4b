"""Some pictures with their predictions, as the network saw them, for the report and W&B."""

import io
from pathlib import Path

import numpy as np
import torch

from pipeline.data.batches import evaluation_rows
from pipeline.data.loader import Loader
from pipeline.files import write_whole


def spread(n: int, count: int) -> np.ndarray:
    """``count`` rows of ``n`` at equal distances: (min(n, count),) int64, no randomness."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).astype(np.int64))


def as_shown(loader: Loader, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some of the loader's pictures as the network sees them, K >= 1.

    :returns: (K, S, S, 3) uint8; (K,) whether each can be shown; labels (K,) int64, or of several a picture
        (K, C) int8.
    """
    split = loader.split.take(rows)
    part = Loader(split, loader.pictures, loader.loading, torch.device("cpu"), channels_last=True)
    (batch,) = part.evaluation(evaluation_rows(len(rows), len(rows), 0, 1), len(rows))
    mean, std = (torch.tensor(values) for values in (loader.pictures.mean, loader.pictures.std))
    pixels = batch.images.permute(0, 2, 3, 1) * std + mean  # (K, S, S, 3) in 0..1
    pixels = (pixels * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    labels = split.labels if split.multilabel else split.labels.astype(np.int64)
    return pixels, batch.weight.numpy() > 0, labels


def keep_samples(file: Path, loader: Loader, rows: np.ndarray, predictions: dict[str, np.ndarray]) -> None:
    """Writes pictures (K, S, S, 3) uint8, labels (``as_shown``), classes and predictions, (K,) each, as npz.

    A picture that cannot be shown, or has a prediction of -1 because it could not, is left out.
    """
    if len(rows):
        known = np.all([said >= 0 for said in predictions.values()], axis=0)  # (K,), or true without any
        keep_pictures(file, loader, rows, predictions, known)


def keep_pictures(
    file: Path,
    loader: Loader,
    rows: np.ndarray,
    about: dict[str, np.ndarray],
    known: np.ndarray | bool = True,
) -> None:
    """Writes pictures (K, S, S, 3) uint8, labels (``as_shown``), classes, and what is said about each, (K,),
    as npz.

    :param rows: K >= 1. :param known: (K,) which may be kept; of these, one that cannot be shown is left out.
    """
    pixels, seen, labels = as_shown(loader, rows)
    shown = seen & known
    whole = io.BytesIO()
    np.savez_compressed(
        whole,
        pictures=pixels[shown],
        labels=labels[shown],
        classes=np.array(loader.split.classes),
        **{name: each[shown] for name, each in about.items()},
    )
    write_whole(file, whole.getvalue())
