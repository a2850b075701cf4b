"""A dataset's result, ``transfer/<dataset>.json``: read and checked."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import UserError, one_line
from pipeline.monitor.history import is_number

MODES = ("scratch", "frozen", "finetuned")
ANALYSES = ("neighbours", "shots", "resolution", "depth")
"""Kinds of what is asked of frozen features besides the score."""


def read_result(file: Path) -> dict[str, Any]:
    """:raises UserError: it cannot be read, or is not as transfer writes it."""
    try:
        transfer = json.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{file}: cannot be read as JSON: {one_line(error)}; run the transfer again"
        ) from None
    wrong = _wrong(transfer)
    if wrong:
        raise UserError(f"{file}: {wrong}; run the transfer again")
    return transfer | {"stem": file.stem, "improvement": transfer.get("improvement") or {}}


def _wrong(transfer: Any) -> str | None:
    """The first thing in which a transfer file departs from its layout."""
    if not isinstance(transfer, dict):
        return f"holds {type(transfer).__name__}, not an object"
    kinds = {"dataset": str, "classes": list, "results": list, "summary": dict}
    for key, kind in kinds.items():
        if not isinstance(transfer.get(key), kind):
            return f"{key}: {'missing' if key not in transfer else 'is not a ' + kind.__name__}"
    for section in ("summary", "improvement"):
        cells = transfer.get(section) or {}
        if not isinstance(cells, dict):
            return f"{section}: is not a dict"
        for mode, cell in cells.items():
            if mode not in MODES:
                return f"{section}.{mode}: no such mode; there are {', '.join(MODES)}"
            for key in ("value", "low", "high"):
                if not isinstance(cell, dict) or not is_number(cell.get(key)):
                    return f"{section}.{mode}.{key}: not a number"
    for number, result in enumerate(transfer["results"]):
        if not isinstance(result, dict) or result.get("mode") not in MODES:
            return f"results.{number}.mode: not one of {', '.join(MODES)}"
        if not is_number(result.get("value")):
            return f"results.{number}.value: not a number"
        confusion, k = result.get("confusion"), len(transfer["classes"])
        if confusion is not None and np.shape(confusion) != (k, k):
            return f"results.{number}.confusion: not {k} by {k}, as there are {k} classes"
    return _wrong_analyses(transfer.get("analyses") or [])


def _wrong_analyses(analyses: Any) -> str | None:
    """The first thing in which they depart from their layout."""
    if not isinstance(analyses, list):
        return "analyses: is not a list"
    for number, each in enumerate(analyses):
        if not isinstance(each, dict) or each.get("kind") not in ANALYSES:
            return f"analyses.{number}.kind: not one of {', '.join(ANALYSES)}"
        numbers = ["value", "low", "high", "n_train", *(["x"] if each["kind"] in ANALYSES[1:3] else [])]
        if wrong := [key for key in numbers if not is_number(each.get(key))]:
            return f"analyses.{number}.{wrong[0]}: not a number"
        rows = each.get("results")
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and is_number(row.get("value")) and isinstance(row.get("chosen"), dict)
            for row in rows
        ):
            return f"analyses.{number}.results: not rows with value and chosen"
    return None
