"""What a run folder holds, read once and checked, so that tables, plots and page only draw.

Only a config must be there, training's or transfer's; a part that is missing stays empty and is left out of
the report.
"""

import json
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import UserError, one_line
from pipeline.monitor.history import History, is_number, read_config, read_history
from pipeline.report.atlas import Atlas, read_atlas
from pipeline.report.results import MODES, read_result


@dataclass(frozen=True)
class Samples:
    """Test pictures with what was predicted for them."""

    pictures: np.ndarray  # (K, H, W, 3) uint8
    labels: np.ndarray  # (K,) int; of several labels a picture (K, C), above 0 where a class is shown
    predictions: dict[str, np.ndarray]  # by mode, (K,) int; a training run has one, called ""
    classes: list[str]
    confidence: np.ndarray | None = None
    """(K,) in 0..1, of the prediction; where these are mistakes of one mode."""

    def truth(self, index: int) -> str:
        """The picture's class, or all that it shows."""
        if self.labels.ndim == 1:
            return self.classes[int(self.labels[index])]
        return ", ".join(self.classes[each] for each in np.flatnonzero(self.labels[index] > 0)) or "none"

    def wrong(self, index: int, mode: str) -> str | None:
        """What a mode said of the picture, how surely in front if that is known; none where it is right.

        In front, because under a picture of a sheet a long name is cut at its end.
        """
        said = int(self.predictions[mode][index])
        right = self.labels[index] == said if self.labels.ndim == 1 else self.labels[index][said] > 0
        if right:
            return None
        sure = "" if self.confidence is None else f"{100 * self.confidence[index]:.0f} % "
        return sure + self.classes[said]


@dataclass(frozen=True)
class Run(History):
    """A run folder's contents."""

    transfer_config: dict[str, Any] = field(default_factory=dict)
    """transfer/config.yaml"""
    transfers: list[dict[str, Any]] = field(default_factory=list)
    """transfer/*.json by name of file, each with ``stem`` (the file's name without ending) added."""
    transfer_samples: dict[str, Samples] = field(default_factory=dict)
    """By stem of the transfer file."""
    mistakes: dict[str, dict[str, Samples]] = field(default_factory=dict)
    """Each mode's surest ones, by stem of the transfer file."""
    maps: dict[str, Atlas] = field(default_factory=dict)
    """By stem of the transfer file: its features on a plane."""
    samples: Samples | None = None
    confusion: dict[str, Any] = field(default_factory=dict)
    """confusion.json: the classes that the training's network misses most often."""

    @property
    def name(self) -> str:
        return str((self.config or self.transfer_config).get("name") or self.path.resolve().name)


def load(run: str | Path) -> Run:
    """Reads a run folder.

    :raises UserError: no such folder, no config in it, or a file that is not what its name says.
    """
    path = Path(run)
    history, transfer_config = read_history(path), read_config(path / "transfer" / "config.yaml")
    if not history.config and not transfer_config:
        raise UserError(f"{path / 'config.yaml'}: missing; launch.train leaves a run's resolved config there")
    transfers, samples, mistakes, maps = [], {}, {}, {}
    for file in sorted(path.glob("transfer/*.json")):
        transfer = read_result(file)
        transfers.append(transfer)
        pictures = file.with_suffix(".samples.npz")
        if pictures.exists():
            samples[transfer["stem"]] = _samples(pictures, transfer["classes"])
        wrong = file.with_suffix(".mistakes.npz")
        if wrong.exists():
            mistakes[transfer["stem"]] = _mistakes(wrong, transfer["classes"])
        if shown := read_atlas(file.with_suffix(".map.npz"), len(transfer["classes"])):
            maps[transfer["stem"]] = shown
    return Run(
        **vars(history),
        transfer_config=transfer_config,
        transfers=transfers,
        transfer_samples=samples,
        mistakes=mistakes,
        maps=maps,
        samples=_samples(path / "samples.npz", None) if (path / "samples.npz").exists() else None,
        confusion=_confusion(path / "confusion.json"),
    )


def _confusion(file: Path) -> dict[str, Any]:
    try:
        confusion = json.loads(file.read_text("utf-8"))
        for each in confusion["worst"]:
            names = [each["class"], *(other["class"] for other in each["taken_for"])]
            values = [each["recall"], each["low"], each["high"], each["pictures"]]
            values += [other["pictures"] for other in each["taken_for"]]
            if not all(isinstance(name, str) for name in names) or not all(map(is_number, values)):
                raise ValueError("a class without its name and figures")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file}: is not as training writes it: {one_line(error)}; remove it") from None
    return confusion


def _arrays(file: Path, *needed: str) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file}: cannot be read as arrays: {one_line(error)}") from None
    missing = set(needed) - held.keys()
    if missing:
        raise UserError(f"{file}: has no array {', '.join(sorted(missing))}")
    return held


def _mistakes(file: Path, classes: list[str]) -> dict[str, Samples]:
    held = _arrays(file, "pictures", "labels", "modes", "said", "confidence")
    out = {}
    for mode in MODES:
        ours = held["modes"] == mode
        if ours.shape == held["said"].shape == held["confidence"].shape and ours.any():
            parts = {"pictures": held["pictures"], "labels": held["labels"], "predictions": held["said"]}
            found = _checked(file, {key: array[ours] for key, array in parts.items()}, classes)
            out[mode] = replace(
                found, predictions={mode: found.predictions[""]}, confidence=held["confidence"][ours]
            )
    return out


def _samples(file: Path, classes: list[str] | None) -> Samples:
    held = _arrays(file, "pictures", "labels", *["classes"] * (classes is None))
    return _checked(file, held, classes)


def _checked(file: Path, held: dict[str, np.ndarray], classes: list[str] | None) -> Samples:
    names = [str(name) for name in (held["classes"] if classes is None else classes)]
    predictions = {
        name.removeprefix("predictions").removeprefix("_"): array
        for name, array in held.items()
        if name.startswith("predictions")
    }
    pictures, labels, numbers = held["pictures"], held["labels"], list(predictions.values())
    if labels.ndim != 2:
        numbers.append(labels)
    elif labels.shape != (len(pictures), len(names)):
        raise UserError(f"{file}: labels: {labels.shape}, not one for each picture and class")
    if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8:
        raise UserError(f"{file}: pictures: {pictures.dtype} {pictures.shape}, not uint8 (K, H, W, 3)")
    if any(array.shape != pictures.shape[:1] for array in numbers):
        raise UserError(f"{file}: labels and predictions: not one for each of {len(pictures)} pictures")
    if any(array.size and not 0 <= array.min() <= array.max() < len(names) for array in numbers):
        raise UserError(f"{file}: labels and predictions: not all among the {len(names)} classes")
    return Samples(pictures, labels, predictions, names)
