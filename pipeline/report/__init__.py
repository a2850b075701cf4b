"""The report of a run: the lectures' table with intervals, plots, and one page that holds everything.

``write(run)`` makes ``report.md``, ``plots/*.png`` and ``report.html`` in the run's folder.
"""

from pathlib import Path

from pipeline.config import UserError
from pipeline.figures.html import Plots
from pipeline.figures.style import LOOKS, png
from pipeline.report import amounts, analyses, clock, flow, page, pictures, plots, worst
from pipeline.report.compare import compare, comparison_table
from pipeline.report.gains import gain_chart
from pipeline.report.inputs import Run, load
from pipeline.report.receipts import same_pictures
from pipeline.report.tables import print_table, table
from pipeline.report.trainings import print_trainings, settings
from pipeline.report.worst import worst_chart

__all__ = [
    "Run",
    "compare",
    "comparison_table",
    "load",
    "print_table",
    "print_trainings",
    "same_pictures",
    "settings",
    "table",
    "write",
]


def write(run: str | Path | Run) -> Path:
    """Writes the report of a run folder into it and returns the path of ``report.html``.

    :raises UserError: what ``load`` raises, or the folder cannot be written.
    """
    run = run if isinstance(run, Run) else load(run)
    drawn = draw(run)
    try:
        (run.path / "plots").mkdir(exist_ok=True)
        for name, looks in drawn.items():
            (run.path / "plots" / f"{name}.png").write_bytes(looks["light"])
        (run.path / "report.md").write_text(page.markdown(run, drawn), encoding="utf-8")
        out = run.path / "report.html"
        out.write_text(page.html(run, drawn), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{error.filename or run.path}: cannot be written: {error.strerror}") from None
    return out


def draw(run: Run) -> Plots:
    """Every plot that the run has something for, in every look."""
    curves = amounts.curves(run.transfers)
    points = {transfer["stem"] for each in curves.values() for transfer in each}
    alone = [transfer for transfer in run.transfers if transfer["stem"] not in points]
    figures = {
        "curves": lambda look: plots.learning_curves(run, look),
        "gradient-flow": lambda look: flow.flow_chart(run, look),
        "time": lambda look: clock.clock_chart(run, look),
        "transfer": lambda look: plots.transfer_chart(alone, look),
        "gains": lambda look: gain_chart(alone, look),
        "worst": lambda look: worst_chart(run.confusion, look),
    }
    for name, curve in curves.items():
        figures[f"amount-{name}"] = lambda look, curve=curve: amounts.amount_chart(curve, look)
    for transfer in alone:
        figures[f"confusion-{transfer['stem']}"] = (
            lambda look, transfer=transfer: pictures.confusion_chart(transfer, look)
        )  # fmt: skip
        figures[f"worst-{transfer['stem']}"] = (
            lambda look, transfer=transfer: worst_chart(worst.of_transfer(transfer), look)
        )  # fmt: skip
        charts = analyses.charts(transfer, run.maps.get(transfer["stem"]))
        figures |= {name: chart.draw for name, chart in charts.items()}
    drawn: Plots = {}
    for name, figure in figures.items():
        made = {name: figure(look) for name, look in LOOKS.items()}
        if made["light"] is not None:
            drawn[name] = {look: png(shown) for look, shown in made.items()}
    sheets = {"samples": run.samples}
    sheets |= {f"samples-{stem}": samples for stem, samples in run.transfer_samples.items()}
    sheets |= {
        f"mistakes-{stem}-{mode}": samples
        for stem, modes in run.mistakes.items()
        for mode, samples in modes.items()
    }
    for name, samples in sheets.items():
        sheet = pictures.sheet(samples) if samples else None
        if sheet:
            drawn[name] = {"light": sheet}
    return drawn
