"""How rows and the end of a run look in W&B."""

import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import wandb

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
    """Pictures with their predictions, and the worst classes.

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
            told["worst_classes"] = _worst(confusion["worst"])
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


def _worst(worst: list[dict]) -> wandb.Html:
    """The classes missed most often, as a table of HTML; a wandb.Table would wait for the server."""
    head = "<tr><th>class<th>pictures<th>recall, % [95 % interval]<th>taken for</tr>"
    rows = [
        f"<tr><td>{escape(each['class'])}<td>{each['pictures']}<td>{100 * each['recall']:.1f} "
        f"[{100 * each['low']:.1f}, {100 * each['high']:.1f}]<td>{escape(_taken_for(each))}</tr>"
        for each in worst
    ]
    return wandb.Html(f"<table cellpadding=6>{head}{''.join(rows)}</table>")


def _taken_for(each: dict) -> str:
    return ", ".join(f"{other['class']} {other['pictures']}" for other in each["taken_for"])
