"""The report as one self-contained HTML page and as Markdown, from the same parts."""

import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import yaml
from PIL import Image

from pipeline.figures.html import Plots, data_uri, rendered
from pipeline.figures.style import MODE_NAMES, SYMBOLS
from pipeline.report import amounts, analyses, clock, flow, gains, summary, tables
from pipeline.report.atlas import Atlas
from pipeline.report.inputs import MODES, Run, Samples
from pipeline.report.pictures import evenly

SHARP = 64
"""Pictures up to this side are shown with sharp pixels and kept without loss."""
SHOWN_SIDE = 224
"""Pixels to which greater ones are scaled for the page."""
MOST_PICTURES = 24


def html(run: Run, plots: Plots) -> str:
    """The page: no address outside it, pictures inline, light and dark, wide and narrow."""
    lines = tables.rows(run.transfers)
    return rendered(
        Path(__file__).parent,
        plots,
        **_common(run),
        rows=lines,
        slide=any(row.slide for row in lines),
        caption=tables.caption(run.transfers),
        modes=MODES,
        mode_names=MODE_NAMES,
        symbols=SYMBOLS,
        transfers=[_transfer(run, transfer) for transfer in run.transfers],
        samples=_grid(run.samples),
        split=run.confusion.get("split"),
        gains_reading=gains.READING,
    )


def _common(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "headline": summary.headline(run),
        "facts": summary.facts(run),
        "tiles": summary.tiles(run),
        "notes": summary.notes(run),
        "insights": _insights(run),
        "commands": summary.commands(run),
        "configs": [
            (file, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
            for file, config in (("config.yaml", run.config), ("transfer/config.yaml", run.transfer_config))
            if config
        ],
    }


def _insights(run: Run) -> list[tuple[str, str, list[str]]]:
    """Plot, heading, and how to read it."""
    scale = flow.noise_scale(run)
    return [
        *(
            (f"amount-{name}", f"{name}: how many pictures", [amounts.READING])
            for name in amounts.curves(run.transfers)
        ),
        ("gradient-flow", "Gradient flow", [*flow.READING, *([scale] if scale else [])]),
        ("time", "Where the time goes", [clock.READING]),
    ]


def _transfer(run: Run, transfer: dict[str, Any]) -> dict[str, Any]:
    return {
        "stem": transfer["stem"],
        "dataset": transfer["dataset"],
        "protocol": str(transfer.get("protocol") or ""),
        "checkpoint": str(transfer.get("checkpoint") or ""),
        "samples": _grid(run.transfer_samples.get(transfer["stem"])),
        "mistakes": {mode: _grid(each) for mode, each in run.mistakes.get(transfer["stem"], {}).items()},
        "singles": summary.single_results(transfer),
        "charts": analyses.charts(transfer, run.maps.get(transfer["stem"])),
        "analyses": analyses.rows(transfer),
    }


def _grid(samples: Samples | None) -> list[dict[str, Any]]:
    """For each picture shown its source, its true name, and what each mode said."""
    if samples is None or not samples.predictions:
        return []
    modes = [mode for mode in ("", *MODES) if mode in samples.predictions]
    out = []
    for index in evenly(samples, MOST_PICTURES):
        source, sharp = _picture(samples.pictures[index])
        out.append(
            {
                "source": source,
                "sharp": sharp,
                "true": samples.truth(index),
                "said": [(mode, samples.wrong(index, mode)) for mode in modes],
            }
        )
    return out


def _picture(pixels: np.ndarray) -> tuple[str, bool]:
    """(H, W, 3) uint8 as data URI, and whether its pixels shall be shown sharp."""
    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    if max(picture.size) <= SHARP:
        picture.save(buffer, "PNG", optimize=True)
        return data_uri(buffer.getvalue()), True
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    picture.save(buffer, "JPEG", quality=85)
    return data_uri(buffer.getvalue(), "jpeg"), False


def markdown(run: Run, plots: Plots) -> str:
    """The report for a terminal or a repository; its pictures lie in ``plots/``."""
    parts, escape = _common(run), tables.markdown
    out = [f"# {escape(parts['headline'])}", " · ".join([f"`{run.name}`", *map(escape, parts["facts"])])]
    out += [f"> {escape(note)}" for note in parts["notes"]]
    if parts["tiles"]:
        out.append("\n".join(
            f"- {escape(tile.name)}: **{escape(tile.value)} {tile.unit}** {escape(tile.note)}".rstrip()
            for tile in parts["tiles"]
        ))  # fmt: skip
    if run.transfers:
        out += ["## Transfer", tables.table(run.transfers).rstrip(), *_image(plots, "transfer", "Transfer")]
        out += _image(plots, "gains", "Improvement over training from scratch")
    if "curves" in plots:
        heading = "## Pre-training" if run.transfers else "## Training"
        out += [heading, *_image(plots, "curves", "Learning curves")]
    out += _image(plots, "samples", "Sample pictures with predictions")
    out += _image(plots, "worst", "Classes that are missed most often")
    for plot, heading, reading in parts["insights"]:
        if plot in plots:
            listed = "\n".join(f"- {escape(line)}" for line in reading)
            out += [f"## {heading}", *_image(plots, plot, heading), listed]
    for transfer in run.transfers:
        out += _dataset(transfer, plots, run.maps.get(transfer["stem"]))
    out.append("## Settings")
    out += [f"To {what}:\n\n{_fenced(command, 'sh')}" for what, command in parts["commands"]]
    for file, text in parts["configs"]:
        folded = _fenced(text.rstrip(), "yaml")
        out.append(f"<details><summary>{file}</summary>\n\n{folded}\n\n</details>")
    return "\n\n".join(out) + "\n"


def _dataset(transfer: dict[str, Any], plots: Plots, atlas: Atlas | None) -> list[str]:
    escape, stem = tables.markdown, transfer["stem"]
    out = [f"## {escape(transfer['dataset'])}"]
    for key in ("protocol", "checkpoint"):
        out += [f"{key.capitalize()}: {escape(str(transfer[key]))}"] if transfer.get(key) else []
    out += _image(plots, f"samples-{stem}", f"{transfer['dataset']}: sample pictures with predictions")
    for mode in MODES:
        words = f"{transfer['dataset']}, {MODE_NAMES[mode]}: the surest mistakes"
        out += _image(plots, f"mistakes-{stem}-{mode}", words)
    out += _image(plots, f"confusion-{stem}", f"{transfer['dataset']}: confusion matrices")
    out += _image(plots, f"worst-{stem}", f"{transfer['dataset']}: classes that are missed most often")
    out += _analyses(transfer, plots, atlas)
    lines = [
        f"| {MODE_NAMES[single['mode']]} | {escape(single['seed'])} | {single['score']} {single['interval']} "
        f"| {escape(single['chosen'])} |"
        for single in summary.single_results(transfer)
    ]
    table = "\n".join(["| mode | seed | % | chosen |", "| :-- | --: | --: | :-- |", *lines])
    return [*out, f"<details><summary>Every seed</summary>\n\n{table}\n\n</details>"]


def _analyses(transfer: dict[str, Any], plots: Plots, atlas: Atlas | None) -> list[str]:
    out = []
    for name, chart in analyses.charts(transfer, atlas).items():
        if name in plots:
            heading = f"{transfer['dataset']}: {chart.heading}"
            out += [*_image(plots, name, heading), tables.markdown(chart.reading)]
    lines = [
        f"| {each['kind']} | {tables.markdown(each['x'])} | {each['score']} {each['interval']} "
        f"| {each['n_train']} | {each['seeds']} | {each['chosen']} |"
        for each in analyses.rows(transfer)
    ]
    head = "| of frozen features | at | % | training pictures | runs | chosen |"
    return [*out, *(["\n".join([head, "| :-- | :-- | --: | --: | --: | :-- |", *lines])] if lines else [])]


def _image(plots: Plots, name: str, words: str) -> list[str]:
    return [f"![{tables.markdown(words)}](plots/{quote(name)}.png)"] if name in plots else []


def _fenced(text: str, language: str) -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"
