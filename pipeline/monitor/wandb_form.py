"""How rows and the end of a run look in W&B."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from PIL import Image

SHARED = ("step", "epoch", "time", "split")


def numbers(row: dict) -> dict[str, float]:
    """A row of metrics.jsonl as W&B takes it: ``train/loss``, and of lists by layer ``gradients/norm/fc``.

    What is no number, such as the loss of a step that was skipped, is left out.
    """
    flat: dict[str, Any] = {"step": row["step"], "epoch": row["epoch"]}
    layers = row.get("layers")
    for key, value in row.items():
        if key in SHARED or key == "layers":
            continue
        name = f"{row['split']}/{key}"
        if isinstance(value, list) and isinstance(layers, list) and len(value) == len(layers):
            flat |= {f"{name}/{layer}": part for layer, part in zip(layers, value, strict=True)}
        else:
            flat[name] = value
    return {key: value for key, value in flat.items() if isinstance(value, (int, float))}


def end_of_run(folder: Path) -> dict[str, Any]:
    """Pictures with their predictions, and the plot of the worst classes.

    No ``wandb.Table``: it is an artifact, and asks the server while the program waits.
    """
    told: dict[str, Any] = {}
    if (folder / "samples.npz").exists():
        with np.load(folder / "samples.npz", allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in ("pictures", "labels", "predictions", "classes")}
        told["samples"] = _pictures(**held)
    if (folder / "confusion.json").exists():
        confusion = json.loads((folder / "confusion.json").read_text("utf-8"))
        if confusion["worst"]:
            told["worst_classes"] = wandb.Image(_plot(confusion))
    return told


def _pictures(
    pictures: np.ndarray, labels: np.ndarray, predictions: np.ndarray, classes: np.ndarray
) -> list[wandb.Image]:
    """(K, H, W, 3) uint8 with (K,) labels and predictions."""
    names = [str(name) for name in classes]
    captions = [
        names[true] if said == true else f"{names[true]}, taken for {names[said]}"
        for true, said in zip(labels, predictions, strict=True)
    ]
    shown = zip(pictures, captions, strict=True)
    return [wandb.Image(picture, caption=caption) for picture, caption in shown]


def _plot(confusion: dict) -> Image.Image:
    """The report's plot."""
    from pipeline.report.style import Look, png  # brings matplotlib, which a run needs only at its end
    from pipeline.report.worst import worst_chart

    return Image.open(io.BytesIO(png(worst_chart(confusion, Look()))))
