"""What a run says in a sentence, in a handful of figures, and how to do it again."""

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipeline.figures.style import MODE_NAMES
from pipeline.monitor.history import busy, is_number
from pipeline.report import clock, tables
from pipeline.report.inputs import MODES, Run

SPLIT_NAMES = {"test": "test set", "val": "validation set"}
PERCENT = "\u00a0%"  # never on a line of its own
MOST_TILES = 5
"""Datasets with a figure of their own above the table."""


@dataclass(frozen=True)
class Tile:
    """One headline figure."""

    name: str
    value: str
    unit: str = ""
    note: str = ""
    mode: str = ""
    """Colours the name; empty where no mode of transfer is meant."""


def headline(run: Run) -> str:
    """The run's outcome in one sentence, no stronger than its intervals."""
    lines = [row for row in tables.rows(run.transfers) if row.cells]
    compared = [row for row in lines if row.improvement]
    if len(compared) > 1:
        wins = [row for row in compared if row.told_apart and row.improvement.value.startswith("+")]
        # Of a curve several rows are of one dataset.
        what = "settings" if any(each.get("curve") for each in run.transfers) else "datasets"
        return f"Transfer beats training from scratch on {len(wins)} of {len(compared)} {what}"
    if compared:
        return _comparison(compared[0])
    if lines:
        mode, cell = next(iter(lines[0].cells.items()))
        return f"{_capital(MODE_NAMES[mode])} reaches {cell.value}{PERCENT} on {lines[0].dataset}"
    measured = run.last("test", "val")
    if measured:
        split, value = measured
        return f"{tables.percent(value)}{PERCENT} top-1 on the {SPLIT_NAMES[split]}"
    epochs, losses = run.column("train", "loss")
    if len(losses):
        return f"Training loss {losses[-1]:.3g} at epoch {epochs[-1]:.3g}"
    return "Nothing measured yet"


def _comparison(row: tables.Row) -> str:
    start = f"{_capital(row.compared)} reaches {row.cells[row.compared].value}{PERCENT} on {row.dataset}"
    points = row.improvement.value[1:]
    if not row.told_apart:
        return f"{start}, not told apart from training from scratch"
    side = "above" if row.improvement.value.startswith("+") else "below"
    return f"{start}, {points} points {side} training from scratch"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def facts(run: Run) -> list[str]:
    """The line under the title: which model, how far, when."""
    config = run.config or run.transfer_config
    model = _section(run, "model").get("name")
    out = [str(model)] if model else []
    if config.get("seed") is not None:
        out.append(f"seed {config['seed']}")
    epochs, _ = run.column("train", "loss")
    if len(epochs):
        train = _section(run, "train")
        asked = None if train.get("steps") else train.get("epochs")
        # The last step can lie a little beyond the epochs asked for: steps are whole.
        if not isinstance(asked, (int, float)):
            out.append(f"{epochs[-1]:.3g} epochs")
        else:
            short = epochs[-1] < asked - 1e-6
            out.append(f"at epoch {epochs[-1]:.3g} of {asked:g}" if short else f"{asked:g} epochs")
        if seconds := busy(run):
            out[-1] += f", steps took {duration(seconds)}"
    if run.times:
        out.append(datetime.fromtimestamp(max(run.times), UTC).strftime("%d %b %Y %H:%M UTC"))
    return out


def tiles(run: Run) -> list[Tile]:
    """Headline figures, the most wanted first."""
    lines = [row for row in tables.rows(run.transfers) if row.cells]
    out = []
    if len(lines) == 1:
        for mode in reversed(MODES):
            if mode in lines[0].cells:
                cell = lines[0].cells[mode]
                out.append(Tile(MODE_NAMES[mode], cell.value, "%", cell.interval, mode))
    else:
        for row in lines[:MOST_TILES]:
            gain = row.improvement
            if gain:
                out.append(
                    Tile(row.dataset, gain.value, "points", f"{row.compared} {gain.interval}", row.compared)
                )
    return out + _training_tiles(run)


def _training_tiles(run: Run) -> list[Tile]:
    out = []
    measured = run.last("test", "val")
    if measured:
        split, value = measured
        classes = len(run.samples.classes) if run.samples else 0
        chance = f", chance {tables.percent(1 / classes)}{PERCENT}" if classes else ""
        note = f"{SPLIT_NAMES[split]}{chance}"
        out.append(Tile("pre-training" if run.transfers else "training", tables.percent(value), "%", note))
        if average := run.last(split, key="ema_top1"):
            words = "of the weights' moving average"
            out.append(Tile("average", tables.percent(average[1]), "%", words))
    _, rates = run.column("train", "images_per_s")
    if len(rates):
        _, waits = run.column("train", "data_wait")
        waited = clock.means(run).get("data_wait", np.mean(waits) if len(waits) else None)
        note = "median" if waited is None else f"median; {waited:.0%} waiting for pictures"
        out.append(Tile("pictures/s", tables.count(round(float(np.median(rates)))), note=note))
    return out


def notes(run: Run) -> list[str]:
    """What a reader must know before believing the figures."""
    out = []
    losses = [(row["loss"], row.get("epoch")) for row in run.rows if "loss" in row]
    lost = [epoch for loss, epoch in losses if not is_number(loss)]
    if lost:
        out.append(f"The loss is not a finite number in {len(lost)} rows, first at epoch {_brief(lost[0])}.")
    _, skipped = run.column("train", "skipped")
    if count := int(sum(skipped)):
        steps = "1 step was" if count == 1 else f"{tables.count(count)} steps were"
        out.append(
            f"{steps} skipped, as the gradient was not finite (in fp16 some are how its scale is found); "
            "nonfinite.tsv names the pictures."
        )
    _, faults = run.column("train", "faults")
    if sum(faults):
        out.append(
            f"{tables.count(int(sum(faults)))} times a picture could not be read or decoded and another "
            "stood in for it; faults.tsv names them."
        )
    if run.unreadable:
        out.append(f"{run.unreadable} unreadable lines of metrics.jsonl were left out.")
    return out


def duration(seconds: float) -> str:
    """Seconds in the two units that matter: ``48 s``, ``12 min 05 s``, ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def commands(run: Run) -> list[tuple[str, str]]:
    """(what for, command line): the run again under another name, and this report again."""
    again, out = shlex.quote(f"name={run.name}-again"), []
    for door, config, file in (
        ("train", run.config, "config.yaml"),
        ("transfer", run.transfer_config, "transfer/config.yaml"),
    ):
        if config:
            file = shlex.quote(str(run.path / file))
            out.append((f"{door} again", f"python -m launch.{door} {file} {again}"))
    out.append(("draw this report again", f"python -m launch.report {shlex.quote(str(run.path))}"))
    return out


def single_results(transfer: dict[str, Any]) -> list[dict[str, str]]:
    """Every seed of every mode, as printed: mode, seed, score, pictures, and what was chosen for it."""
    out = []
    for result in sorted(transfer["results"], key=lambda result: MODES.index(result["mode"])):
        low, high = result.get("low"), result.get("high")
        known = isinstance(low, (int, float)) and isinstance(high, (int, float))
        chosen = result.get("chosen")
        chosen = chosen if isinstance(chosen, dict) else {}
        # What was tried is in the transfer's file: 45 λ would fill a page.
        chosen = {key: value for key, value in chosen.items() if not isinstance(value, list)}
        out.append(
            {
                "mode": result["mode"],
                "seed": str(result.get("seed", tables.NONE)),
                "score": tables.percent(result["value"]),
                "interval": f"[{tables.percent(low)}, {tables.percent(high)}]" if known else "",
                "chosen": ", ".join(f"{key} {_brief(value)}" for key, value in chosen.items()),
            }
        )
    return out


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _section(run: Run, name: str) -> dict[str, Any]:
    section = run.config.get(name)
    return section if isinstance(section, dict) else {}
