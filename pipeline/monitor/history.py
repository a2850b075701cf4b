"""What a run said of itself, its config.yaml and metrics.jsonl, read back for plots and tables."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.config import UserError, one_line


@dataclass(frozen=True)
class History:
    """A training's config and rows."""

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    """config.yaml, of the training."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """metrics.jsonl in order, one dict a line."""
    unreadable: int = 0
    """Lines of metrics.jsonl that are no JSON object, not counting a last one without its line end."""

    def column(self, split: str, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and values (N,) of the rows of ``split`` in which both are finite numbers."""
        pairs = [(row.get("epoch"), row.get(key)) for row in self.rows if row.get("split") == split]
        pairs = [pair for pair in pairs if all(map(is_number, pair))]
        epochs, values = zip(*pairs, strict=True) if pairs else ((), ())
        return np.asarray(epochs, np.float64), np.asarray(values, np.float64)

    @property
    def times(self) -> list[float]:
        """Unix seconds of all rows that have them."""
        return [row["time"] for row in self.rows if is_number(row.get("time"))]

    def last(self, *splits: str, key: str = "top1") -> tuple[str, float] | None:
        """The first of ``splits`` that has values of ``key``, and its newest value."""
        for split in splits:
            _, values = self.column(split, key)
            if len(values):
                return split, float(values[-1])
        return None


def read_history(path: Path) -> History:
    """Of a run's folder; what is missing in it stays empty.

    :raises UserError: no such folder, or a file that cannot be read.
    """
    if not path.is_dir():
        raise UserError(
            f"{path}: no such run folder; give a folder that launch.train or launch.transfer wrote"
        )
    rows, unreadable = read_metrics(path / "metrics.jsonl")
    return History(path, read_config(path / "config.yaml"), rows, unreadable)


def busy(run: History) -> float:
    """Seconds that the run's steps took, by its rows: no evaluation or save, no start, no time between jobs.

    A row's rate may be of a part of its steps, the last; the others are taken to have been as fast.
    """
    rows = [row for row in run.rows if row.get("split") == "train"]
    pairs = [(row.get("samples"), row.get("images_per_s")) for row in rows]
    pairs = [pair for pair in pairs if all(map(is_number, pair)) and pair[1] > 0]
    if not pairs:
        return 0.0
    samples, rates = np.array(pairs, np.float64).T
    return float((np.diff(samples, prepend=0) / rates).sum())


def is_number(value: Any) -> bool:
    """A finite one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_config(file: Path) -> dict[str, Any]:
    """The mapping in it, empty where there is no such file."""
    try:
        config = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: cannot be read as YAML: {one_line(error)}") from None
    if not isinstance(config, dict):
        raise UserError(f"{file}: holds {type(config).__name__}, a config is a mapping of sections")
    return config


def read_metrics(file: Path) -> tuple[list[dict[str, Any]], int]:
    """Rows and the number of broken lines. A killed process leaves a last line cut off: not counted."""
    try:
        # A cut can fall inside a UTF-8 character.
        text = file.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {one_line(error)}") from None
    lines = text.split("\n")
    rows, broken = [], 0
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        row = _json_object(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines) - 1:
            broken += 1
    return rows, broken


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
