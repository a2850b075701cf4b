"""A study's page, from the same parts as Markdown, HTML and PNG: claimed, run, found, agrees or not."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from pipeline.figures.html import Plots, rendered
from pipeline.figures.style import LOOKS, PNG_LIMIT, Look, png
from pipeline.files import write_whole
from pipeline.study.seeds import AGREES, DIFFERS, OPEN

_WORDS = {
    AGREES: ("agrees", "agree"),
    DIFFERS: ("does not", "do not"),
    OPEN: ("cannot be told here", "cannot be told here"),
}
"""Of a headline: said of one claim, and of several or none."""


@dataclass(frozen=True)
class Verdict:
    """One claim: who made it, what was found, and whether that agrees."""

    claim: str
    source: str
    found: str
    agrees: str


@dataclass(frozen=True)
class Table:
    heading: str
    head: list[str]
    rows: list[list[str]]
    caption: str


@dataclass(frozen=True)
class Panel:
    """A figure with the formula it illustrates, and how to read it."""

    name: str
    heading: str
    draw: Callable[[Look], Figure]
    formula: str
    reading: str


@dataclass(frozen=True)
class Page:
    title: str
    verdicts: list[Verdict]
    run: list[str]
    """What was run, on what, for how long; a sentence each."""
    commands: list[str]
    panels: list[Panel]
    tables: list[Table] = field(default_factory=list)

    @property
    def headline(self) -> str:
        counts = {kind: sum(each.agrees == kind for each in self.verdicts) for kind in _WORDS}
        told = ", ".join(
            f"{count} {_WORDS[kind][count != 1]}" for kind, count in counts.items() if count or kind == AGREES
        )
        return f"{self.title}: of {len(self.verdicts)} claims {told}"


def write(page: Page, folder: Path) -> Path:
    """study.md, study.html and plots/*.png in the study's folder; the path of study.html."""
    drawn = {}
    for panel in page.panels:
        drawn[panel.name] = {name: png(panel.draw(look), PNG_LIMIT) for name, look in LOOKS.items()}
        write_whole(folder / "plots" / f"{panel.name}.png", drawn[panel.name]["light"])
    write_whole(folder / "study.md", markdown(page).encode())
    out = folder / "study.html"
    write_whole(out, html(page, drawn).encode())
    return out


def markdown(page: Page) -> str:
    rows = [[each.claim, each.source, each.found, f"**{each.agrees}**"] for each in page.verdicts]
    out = [f"# {page.headline}", _table(["claimed", "by", "found [95 % over seeds]", ""], rows)]
    for panel in page.panels:
        out += [f"## {panel.heading}", f"`{panel.formula}`"] if panel.formula else [f"## {panel.heading}"]
        out += [f"![{panel.heading}](plots/{panel.name}.png)", panel.reading]
    for table in page.tables:
        out += [f"## {table.heading}", _table(table.head, table.rows), table.caption]
    out += ["## What was run", *page.run, "```\n" + "\n".join(page.commands) + "\n```"]
    return "\n\n".join(out) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, [":--"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in line)} |" for line in lines)


def html(page: Page, drawn: Plots) -> str:
    """One file: no address outside it, light and dark, wide and narrow."""
    return rendered(Path(__file__).parent, drawn, page=page, right=AGREES)
