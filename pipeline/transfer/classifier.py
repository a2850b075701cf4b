"""A checkpoint's own head on all pictures of a split, once: figures, and all that decides them."""

import json
import math
from pathlib import Path

import numpy as np
import torch

from pipeline.config import Loading, Network, Pictures, UserError, changed
from pipeline.data.index import Index, open_index
from pipeline.data.loader import Loader
from pipeline.files import sha256, write_whole
from pipeline.monitor.codebase import code_state
from pipeline.train.evaluate import Evaluation, evaluate
from pipeline.train.ranks import Ranks
from pipeline.transfer.backbone import Backbone
from pipeline.transfer.features import preprocessing, without_tf32
from pipeline.transfer.metrics import mean_per_class
from pipeline.transfer.statistics import Estimate, across_runs, across_seeds, resampled

TOP = 5
SHOWN = ("size", "eval_size", "eval_resize", "interpolation", "pad_colour", "mean", "std")
"""Keys of ``Pictures`` that an evaluation reads."""
NAMES = {"top1": "top-1", "top5": f"top-{TOP}", "mean_per_class": "mean per class"}


def score(
    checkpoint: str,
    index: str,
    split: str,
    overrides: list[str],
    ranks: Ranks,
    *,
    ema: bool = False,
    batch: int = 256,
) -> dict:
    """The figures of a checkpoint with its head on a split; they do not depend on the number of ranks.

    :param overrides: ``key=value`` of ``SHOWN``, or ``model.name=NAME``.
    :param batch: pictures per forward pass of a rank.
    :return: on the first rank; on others nothing. Accuracies are {value, low, high, seeds} in 0..1.
    :raises UserError: no such checkpoint, index or split; one that do not go together; no head.
    """
    named = [word.removeprefix("model.") for word in overrides if word.startswith("model.")]
    name = changed(Network(), named, "model").name
    opened = open_index(index, "INDEX")
    pictures = opened.split(split, "--split")
    backbone = Backbone.read(checkpoint, ema=ema, tell=ranks.first, name=name)
    _check_head(backbone, opened)
    shown = _shown(backbone, [word for word in overrides if not word.startswith("model.")])
    loader = Loader(pictures, shown, Loading(), ranks.device, channels_last=True)
    ranks.at("evaluate")
    with without_tf32():
        model = backbone.frozen(ranks.device).model
        seen = evaluate(model, loader, min(batch, len(pictures)), ranks, torch.float32)
    _check_answers(seen, backbone, split)
    ranks.at("intervals", long=True)
    found = {}
    if ranks.first:
        found = _about(backbone, opened, loader) | {"split": split} | _figures(seen, loader)
    ranks.barrier()  # a rank that has left stands still for the watchdog
    return found


def keep(found: dict, file: Path) -> None:
    """Writes what ``score`` returned as JSON."""
    write_whole(file, (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())


def table(found: dict) -> str:
    """What ``score`` returned as lines of text."""
    n, faults = found["n_test"], len(found["faults"])
    weights = ", moving average" if found["ema"] else ""
    lines = [
        f"{found['checkpoint']}, {found['model']}{weights}",
        f"{found['index']}, {found['split']}: {n:,} pictures, {len(found['classes']):,} classes",
    ]
    if faults:
        lines += [f"{faults:,} more could not be shown; they count in no figure"]
    lines += ["", f"{'':14}       %  95 % interval"]
    for key, name in NAMES.items():
        if key in found:
            value, low, high = (100 * found[key][part] for part in ("value", "low", "high"))
            lines += [f"{name:14}  {value:6.2f}  [{low:.2f}, {high:.2f}]"]
    return "\n".join([*lines, f"{'cross-entropy':14}  {found['loss']:6.4f}", "", *_told(found)])


def _told(found: dict) -> list[str]:
    """How pictures were shown, and by which order logits are classes."""
    shown = found["pictures"]
    resize = f"short side to {shown['eval_resize']}, " if shown["eval_resize"] else "not scaled, "
    words = f"shown: {resize}centre {shown['side']}, {shown['interpolation']}, float32"
    for key in ("mean", "std"):
        words += f", {key} {' '.join(f'{each:g}' for each in shown[key])}"
    lines = [words]
    if not found["tells_pictures"]:
        lines += ["the file does not say how it was shown pictures: as usual for ImageNet, unless you say"]
    if not found["tells_classes"]:
        order = " (sorted wnids, as torchvision's)" if found["source"] == "imagenet" else ""
        lines += [f"the file does not name its classes: taken to be in the index's order{order}"]
    return lines


def _shown(backbone: Backbone, overrides: list[str]) -> Pictures:
    """As in the checkpoint's training, else as ImageNet's are; the user's words change it.

    :raises UserError: a word of another key or value, or pictures too small for the network.
    """
    for word in overrides:
        key = word.partition("=")[0].partition(".")[0]
        if key in Pictures.model_fields and key not in SHOWN:
            raise UserError(f"{word}: only training reads {key}; an evaluation reads {', '.join(SHOWN)}")
    shown = changed(backbone.pictures or Pictures(), overrides, "pictures")
    if shown.evaluation_size < backbone.smallest:
        raise UserError(
            f"pictures.eval_size: {backbone.about.name} needs {backbone.smallest} or more, "
            f"not {shown.evaluation_size}"
        )
    return shown


def _check_head(backbone: Backbone, index: Index) -> None:
    """:raises UserError: there is no head, or it answers for other classes than the index has."""
    path, own, theirs = backbone.path, backbone.names, index.classes
    if not backbone.classes:
        raise UserError(f"checkpoint: {path} holds no head, only what stands before it; see launch.transfer")
    if backbone.classes != len(theirs):
        raise UserError(
            f"checkpoint: the head of {path} has {backbone.classes} classes, {index.folder} has "
            f"{len(theirs)}; give an index of the head's own classes"
        )
    if own is not None and own != theirs:
        i = next(i for i, (one, other) in enumerate(zip(own, theirs, strict=True)) if one != other)
        raise UserError(
            f"checkpoint: class {i} of {path} is {own[i]!r}, in {index.folder} it is {theirs[i]!r}; "
            "give an index of the head's own classes in their order"
        )


def _check_answers(seen: Evaluation, backbone: Backbone, split: str) -> None:
    """:raises UserError: the answers are no numbers, or too few for an interval."""
    if (count := int((seen.predictions >= 0).sum())) < 2:
        raise UserError(f"--split {split}: {count} picture could be shown; an interval needs 2 or more")
    if not math.isfinite(seen.loss):
        raise UserError(f"checkpoint: {backbone.path}: its answers are not finite; the weights diverged")


def _about(backbone: Backbone, index: Index, loader: Loader) -> dict:
    """All that decides the figures."""
    return {
        "checkpoint": str(backbone.path),
        "checkpoint_sha256": sha256(backbone.path),
        "ema": backbone.about.ema,
        "model": backbone.about.name,
        "index": str(index.folder),
        "source": index.source,
        "fingerprint": loader.split.fingerprint,
        "classes": index.classes,
        "tells_classes": backbone.names is not None,
        "pictures": preprocessing(loader),
        "tells_pictures": backbone.pictures is not None,
        "precision": "float32",
        "device": loader.device.type,
        "code": code_state(),
    }


def _figures(seen: Evaluation, loader: Loader) -> dict:
    """Of the pictures that could be shown; intervals are over test pictures, as a transfer's."""
    shown, classes = seen.predictions >= 0, len(loader.split.classes)
    labels, said = loader.split.labels[shown], seen.predictions[shown]
    found = {"top1": across_seeds((said == labels)[None])}
    if classes > TOP:
        found["top5"] = across_seeds((seen.before[shown] < TOP)[None])
    found["mean_per_class"] = _mean_per_class(labels, said, classes)
    return {
        "n_test": len(labels),
        "faults": [{"path": each.path, "reason": each.reason} for each in seen.faults],
        **{key: vars(each) for key, each in found.items()},
        "loss": seen.loss,
    }


def _mean_per_class(labels: np.ndarray, said: np.ndarray, classes: int) -> Estimate:
    """labels, said: (N,) integers."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        return mean_per_class.weighted(labels, said, classes, weights)

    scores = resampled(statistic, len(labels), seed=0)  # (draws,)
    return across_runs(np.array([mean_per_class(labels, said, classes)]), scores[None], len(labels))
