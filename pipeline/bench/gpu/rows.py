"""Rows of a run that may still be writing them."""

from pathlib import Path
from typing import Any

from pipeline.monitor.history import read_metrics

Row = dict[str, Any]


def every(folder: Path) -> list[Row]:
    """Of a run's folder; a last line that is cut off is left out."""
    return read_metrics(folder / "metrics.jsonl")[0]


def trained(rows: list[Row]) -> list[Row]:
    """Those of training steps."""
    return [row for row in rows if row["split"] == "train"]
