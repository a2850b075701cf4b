"""Rows of a run that may still be writing them."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def every(folder: Path) -> list[Row]:
    """Of a run's folder; a last line that is cut off is left out."""
    file = folder / "metrics.jsonl"
    rows = []
    for line in file.read_text().splitlines() if file.exists() else []:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def trained(rows: list[Row]) -> list[Row]:
    """Those of training steps."""
    return [row for row in rows if row["split"] == "train"]
