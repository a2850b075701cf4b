"""The lectures' table: each dataset from scratch, frozen and finetuned, and what transfer improves.

Files hold fractions; here they become percent. Intervals are 95 %, in brackets after the value.
"""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.figures.style import MODE_NAMES
from pipeline.report import slide
from pipeline.report.inputs import MODES

METRIC_NAMES = {
    "top1": "top-1",
    "mean_per_class": "mean per class",
    "map_11point": "11-point mAP",
    "map_all_points": "all-point mAP",
}
NONE = "–"


@dataclass(frozen=True)
class Cell:
    """A figure with its interval, as printed."""

    value: str
    interval: str

    def __str__(self) -> str:
        return f"{self.value} {self.interval}"


@dataclass(frozen=True)
class Row:
    """One dataset's line, as printed; a mode that was not run has no cell."""

    run: str | None
    dataset: str
    metric: str
    cells: dict[str, Cell]
    improvement: Cell | None
    compared: str | None
    """Mode of ``improvement``: finetuned, else frozen. Not the better one: chosen by the test pictures, its
    interval would be too narrow."""
    told_apart: bool
    """The improvement's interval leaves out zero."""
    n_train: str
    n_test: str
    seeds: str
    slide: str | None
    """What the lectures' slide has of this dataset, frozen → finetuned."""


def percent(fraction: float) -> str:
    """0.7841 as ``78.4``."""
    return f"{100 * fraction:.1f}".replace("-", "−")


def signed(fraction: float) -> str:
    """0.231 as ``+23.1``, in points of percent."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def count(number: int) -> str:
    """4000 as ``4,000``."""
    return f"{number:,}"


def rows(results: list[dict[str, Any]]) -> list[Row]:
    """Lines of the table from transfer files' contents; one with a key ``run`` says which run it is of."""
    return [_row(transfer) for transfer in results]


def _row(transfer: dict[str, Any]) -> Row:
    summary, improvement = transfer["summary"], transfer.get("improvement") or {}
    compared = next((mode for mode in ("finetuned", "frozen") if mode in improvement), None)
    gain = improvement.get(compared)
    return Row(
        transfer.get("run"),
        transfer["dataset"],
        metric(transfer),
        {
            mode: Cell(percent(summary[mode]["value"]), interval(summary[mode]))
            for mode in MODES
            if mode in summary
        },
        Cell(signed(gain["value"]), interval(gain)) if gain else None,
        compared,
        bool(gain) and (gain["low"] > 0 or gain["high"] < 0),
        _span(result.get("n_train") for result in transfer["results"]),
        _span(result.get("n_test") for result in transfer["results"]),
        _span(_seeds(transfer, mode) for mode in summary),
        str(figures) if (figures := slide.beside(transfer)) else None,
    )


def interval(figure: dict[str, float]) -> str:
    """``[68.1, 73.9]``: a figure's 95 % interval in percent."""
    return f"[{percent(figure['low'])}, {percent(figure['high'])}]"


def _seeds(transfer: dict[str, Any], mode: str) -> int:
    """How many seeds a mode's summary is of; a summary may list them or count them."""
    seeds = transfer["summary"][mode].get("seeds")
    if isinstance(seeds, list):
        return len(seeds)
    return seeds or sum(result["mode"] == mode for result in transfer["results"])


def _span(numbers: Any) -> str:
    """One number if all agree, else from least to most."""
    known = sorted({number for number in numbers if number is not None})
    if not known:
        return NONE
    return count(known[0]) if len(known) == 1 else f"{count(known[0])}–{count(known[-1])}"


def metric(transfer: dict[str, Any]) -> str:
    """The printed name of what a transfer file measures."""
    names = {str(result.get("metric", "top1")) for result in transfer["results"]}
    return ", ".join(sorted(METRIC_NAMES.get(name, name) for name in names)) or METRIC_NAMES["top1"]


def _columns(lines: list[Row]) -> list[tuple[str, Callable[[Row], str | Cell]]]:
    """Heads and what stands below them, shared by Markdown and terminal."""
    columns: list[tuple[str, Callable[[Row], str | Cell]]] = [("dataset", lambda row: row.dataset)]
    if any(row.run for row in lines):
        columns.insert(0, ("run", lambda row: row.run or NONE))
    if {row.metric for row in lines} - {METRIC_NAMES["top1"]}:
        columns.append(("metric", lambda row: row.metric))
    columns += [(MODE_NAMES[mode], lambda row, mode=mode: row.cells.get(mode, NONE)) for mode in MODES]
    if any(row.slide for row in lines):
        columns.append(("the slide", lambda row: row.slide or NONE))
    columns += [
        ("improvement", _improvement),
        ("training pictures", lambda row: row.n_train),
        ("test pictures", lambda row: row.n_test),
        ("seeds", lambda row: row.seeds),
    ]
    return columns


def _improvement(row: Row) -> str | Cell:
    if row.improvement is None:
        return NONE
    return Cell(row.improvement.value, f"{row.improvement.interval} {row.compared}")


def caption(results: list[dict[str, Any]]) -> str:
    """How to read the table."""
    lines, origin = rows(results), slide.reading(results)
    metrics = sorted({row.metric for row in lines})
    name = metrics[0] if len(metrics) == 1 else "metric as named"
    return (
        f"{name}, % [95 % interval]; improvement: finetuned, or else frozen, minus from scratch, "
        "in points, with its own interval"
    ) + (f"; {origin}" if origin else "")


def table(results: list[dict[str, Any]]) -> str:
    """The table as Markdown (GitHub's dialect), names escaped.

    :param results: transfer files' contents as ``load`` gives them.
    """
    lines = rows(results)
    columns = _columns(lines)
    names = [head for head, _ in columns]
    left = sum(name in ("run", "dataset", "metric") for name in names)
    out = [names, [":--"] * left + ["--:"] * (len(names) - left)]
    out += [[markdown(str(get(row))) for _, get in columns] for row in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in out) + f"\n\n{caption(results)}\n"


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a table's cell too: no markup, no HTML, one line."""
    text = html.escape(" ".join(text.split()), quote=False)
    text = re.sub(r"[\\|*`~]", r"\\\g<0>", text)
    # A link or an emphasised word, yet [1.0, 2.0] and snake_case stay readable in the raw file.
    text = re.sub(r"\](?=[(\[:])|^\[(?=[^\]]*\]:)", r"\\\g<0>", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def print_table(results: list[dict[str, Any]], console: Console | None = None) -> None:
    """The table on the terminal, intervals under their figures: it fits 80 columns."""
    lines = rows(results)
    shown = Table(box=box.SIMPLE_HEAD, padding=0, collapse_padding=True, show_edge=False, header_style="")
    shown.add_column("dataset", overflow="fold", vertical="top")
    heads = [*(MODE_NAMES[mode] for mode in MODES), "improvement", "train\ntest", "seeds"]
    for head in heads:
        shown.add_column(head, justify="right", no_wrap=True)
    named = any(row.metric != METRIC_NAMES["top1"] for row in lines)
    for row in lines:
        origin = [row.run] if row.run else []
        origin += [f"slide {row.slide}"] if row.slide else []
        origin += [row.metric] if named else []
        gain = _stacked(row.improvement, row.compared) if row.improvement else Text(NONE)
        shown.add_row(
            Text("\n").join([Text(row.dataset, "bold"), *(Text(word, "dim") for word in origin)]),
            *(_stacked(row.cells[mode]) if mode in row.cells else Text(NONE) for mode in MODES),
            gain,
            Text(f"{row.n_train}\n{row.n_test}"),
            Text(row.seeds),
        )
    console = console or Console()
    console.print(shown, Text(f"\n{caption(results)}; train, test: pictures", "dim"))


def _stacked(cell: Cell, mode: str | None = None) -> Text:
    """As Text, that is without rich's markup: a name in brackets is printed as it is."""
    below = [Text(cell.interval, "dim"), *([Text(mode, "dim")] if mode else [])]
    return Text("\n").join([Text(cell.value, "bold"), *below])
