"""The step's benchmark as Markdown: a table a section, what it was measured on, and how."""

from collections.abc import Callable
from typing import Any

from pipeline.bench.step import summary
from pipeline.bench.step.overhead import LOOK_EVERY, ROW_EVERY
from pipeline.bench.table import heading, listed, rows, spread

FLOW_EVERY = 100
"""Steps between looks at the gradients' flow, for which their cost is told."""


def markdown(results: dict[str, Any]) -> str:
    """:param results: as ``kept.Kept`` has them."""
    machine, setting = results["machine"], results["setting"]
    lines = heading("Step benchmark", machine, setting["threads"], listed(machine["versions"]))
    cells = summary.cells(results)
    lines += rows(["in short", ""], cells) if cells else []
    lines += [_how(setting), ""]
    for name, write in _WRITERS.items():
        if name in results:
            lines += write(results[name], setting)
            when = results["measured"][name]
            if when["date"] != machine["date"]:
                lines += [f"Measured {when['date']}, load before the start {when['load']:g}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _how(setting: dict[str, Any]) -> str:
    return (
        f"Medians [least, greatest], {setting['precision']} on {setting['device']}. Everybody trains on one "
        "batch of noise that is there already, so no loading is measured, in a process of their own that "
        "waits while another has its turn: in every second round backwards, with a step after each change "
        "that is not measured. *Ours* is the loop of `launch.train`, with channels_last, a row of metrics "
        "every step and all its checks. Ratios are taken within a round. *CPU ms*: of all threads; waiting "
        "for each other counts too, as far as they spin."
    )


def _contest(found: list[dict[str, Any]], setting: dict[str, Any]) -> list[str]:
    lines = ["## Against torchvision's and timm's scripts", ""]
    heads = ["step", "ms", "CPU ms", "pictures/s", "ours, compiled, is ×", "ours, not compiled, is ×"]
    for one in found:
        cells = [_step(each) for each in one["lines"] if not each["failed"]]
        lines += [f"{_title(one)}; {one['rounds']} rounds of {one['steps']} steps:", "", *rows(heads, cells)]
        lines += [
            f"- {each['title']} did not run: {each['failed']}." for each in one["lines"] if each["failed"]
        ]
    return lines


def _step(one: dict[str, Any]) -> list[str]:
    rate = spread(one["rate"], ",.1f" if one["rate"]["median"] < 100 else ",.0f")
    faster = [spread(one[key], ".2f") for key in ("ours_faster", "plain_faster")]
    cpu = f"{1000 * one['cpu_seconds']['median']:,.1f}"
    return [one["title"], _milliseconds(one["seconds"]), cpu, rate, *faster]


def _overhead(one: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    bare = one["bare"]["median"]
    named = {
        "the bare step a second time: what cannot be told apart": one["again"],
        "our step without a row of metrics": one["step"],
        "our step with a row of metrics": one["step_with_row"],
    }
    cells = [[name, spread(share, "+.2%")] for name, share in named.items()]
    extra = [
        ["a row of metrics", _milliseconds(one["row"]), f"{one['row']['median'] / bare:.2%}"],
        [
            f"a look at the gradients' flow, every {FLOW_EVERY} steps",
            _milliseconds(one["look"]),
            f"{one['look']['median'] / bare / FLOW_EVERY:.2%}",
        ],
    ]
    parts = [[name, f"{1000 * value:.3f}", f"{value / bare:.2%}"] for name, value in one["parts"].items()]
    return [
        "## What the loop costs",
        "",
        f"{_title(one)}, compiled; longer than forward, backward and fused SGD alone ({1000 * bare:.1f} ms). "
        f"Medians [quartiles] of {one['rounds']} rounds of {one['steps']} steps; our loop writes a row every "
        f"{ROW_EVERY} steps and looks at the gradients every {LOOK_EVERY}, so that steps with and without "
        "take turns:",
        "",
        *rows(["step", "longer than bare"], cells),
        *rows(["once", "ms", "of a step"], extra),
        "Parts of it, each called alone many times:",
        "",
        *rows(["part", "ms", "of a step"], parts),
    ]


def _scaling(one: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    ranks = one["ranks"]
    named = {
        "alone": "1 rank on 1 core",
        "ddp": f"{ranks} ranks on {ranks} cores, DDP",
        "apart": f"{ranks} jobs of 1 rank at once, each on its core",
        "threads": f"1 rank with {ranks} threads",
    }
    cells = [
        [
            title,
            spread(one[case]["rate"], ",.0f"),
            spread(one[case]["efficiency"], ".2f"),
        ]
        for case, title in named.items()
    ]
    return [
        "## Several ranks",
        "",
        f"{_title(one)} on each rank, not compiled, under torchrun; {one['rounds']} rounds of {one['steps']} "
        f"steps. *Of the ideal*: pictures/s divided by {ranks} times those of 1 rank on 1 core in the same "
        f"round. {ranks} jobs that know nothing of each other show what the machine gives:",
        "",
        *rows(["", "pictures/s", "of the ideal"], cells),
    ]


def _start(one: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    cases = one["cases"]
    parts = dict.fromkeys(part for case in cases for part in case["parts"])
    cells = [["**all**", *(f"**{case['total']['median']:.1f}**" for case in cases)]]
    cells += [[part, *(f"{case['parts'][part]:.2f}" for case in cases)] for part in parts]
    runs = ", ".join(str(len(case["told"])) for case in cases)
    return [
        "## From the command to the first step",
        "",
        f"Seconds of `launch.train`; {_title(one)}, JPEGs from the page cache; medians of {runs} runs. "
        "*Launcher*: until Python runs, with torchrun its own start. *Engine*: torch imports its compiler "
        "(`torch._dynamo`) when an optimizer or DDP is made, whether it will be used or not. *First pass*: "
        "primes DDP, and compiles:",
        "",
        *rows(["part", *(case["title"] for case in cases)], cells),
    ]


def _saving(one: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    cells = [
        [f"in the {name}", _milliseconds(one[name]["held"]), _milliseconds(one[name]["after"])]
        for name in ("background", "foreground")
    ]
    size = one["background"]["bytes"] / 1e6
    return [
        "## Checkpoints",
        "",
        f"{one['model']}, {size:,.0f} MB every {one['every']} steps of "
        f"{1000 * one['background']['step']:.0f} ms. By how much the step that saves is longer, and the "
        "steps until the next checkpoint together, which share their cores with the writing:",
        "",
        *rows(["written", "that step, ms longer", "the steps after it, ms longer"], cells),
    ]


_WRITERS: dict[str, Callable[[Any, dict[str, Any]], list[str]]] = {
    "contest": _contest,
    "overhead": _overhead,
    "scaling": _scaling,
    "start": _start,
    "saving": _saving,
}


def _title(one: dict[str, Any]) -> str:
    return f"{one['model']}, {one['batch']} pictures of {one['size']}×{one['size']}"


def _milliseconds(seconds: dict[str, float]) -> str:
    return spread(seconds, ",.1f", scale=1000)
