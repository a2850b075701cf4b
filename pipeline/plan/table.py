"""A plan as Markdown: tables, and what they take for granted."""

import math
import textwrap
from collections.abc import Sequence

from pipeline.config import Train
from pipeline.plan.hardware import ATTAINED
from pipeline.plan.memory import ENGINES, engine_of, state
from pipeline.plan.published import Compared
from pipeline.plan.scaling import Row, Setting
from pipeline.plan.wire import exchanges
from pipeline.plan.words import amount, three

MANY = (64, 1024)
"""GPUs for which state is told besides those of one node."""
KINDS = ("gradients", "weights", "batch norm")


def markdown(setting: Setting, rows: Sequence[Row], compared: Sequence[Compared], command: str) -> str:
    """The whole plan, under the ``command`` that makes it again."""
    parts = (
        [f"# Plan of {setting.config.name}", "", f"    {command}", ""],
        _network(setting),
        _memory(setting),
        _wire(setting),
        _time(setting, rows, compared),
        _loader(setting, rows),
    )
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def comparison(compared: Sequence[Compared]) -> str:
    """The model beside published figures."""
    heads = ["published", "GPUs", "pictures a GPU", "links, GB/s", "efficiency", "model", "off by", "source"]
    lines = [
        "## The model beside published figures",
        "",
        *grid(heads, [_compared(one) for one in compared]),
        *prose(
            "All are of ResNet-50. *Links*: line rates of a GPU in its node and of a node, by data sheets. "
            "*Efficiency*: the larger system's rate a GPU over the smaller one's. *Off by*: the model's "
            f"rate over the published one. The model takes {ATTAINED:.0%} of the links, and has one fitted "
            "constant, the time of a step that does not depend on its pictures: on the row that says so. It "
            "moves no row whose pictures a GPU stay the same, and these the model finds too easy: by its "
            "arithmetic 100 MB of gradients hide behind backward on every one of these networks. What the "
            "runs lost beyond that must lie in what it does not know (feeding, stragglers, interference); "
            "programs on the same kind of machine differ among themselves by as much: A100, 1 → 8."
        ),
    ]
    return "\n".join(lines) + "\n"


def _compared(one: Compared) -> list[str]:
    figure = one.figure
    few, many = figure.pictures
    off = round(one.off, 3) + 0.0  # no "-0.0%"
    return [
        figure.title,
        f"{figure.gpus[0]} → {figure.gpus[1]}",
        f"{few}" if few == many else f"{few} → {many}",
        f"{figure.cluster.link / 1e9:g}, {figure.cluster.network / 1e9:g}",
        f"{figure.efficiency:.1%}",
        f"{one.model:.1%}",
        f"{off:+.1%}" + (" (fitted)" if figure.fitted else ""),
        figure.source,
    ]


def prose(text: str) -> list[str]:
    """Lines of a paragraph."""
    return textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False)


def engine_name(engine: str | int) -> str:
    return "DDP" if engine == "ddp" else f"ZeRO stage {engine}"


def grid(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, padded so that it reads as text too; lines, the last one empty."""
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]

    def line(words: Sequence[str]) -> str:
        padded = [word.rjust(width) for word, width in zip(words, widths, strict=True)]
        return "| " + " | ".join([words[0].ljust(widths[0]), *padded[1:]]) + " |"

    rule = (
        "|"
        + "|".join([":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])])
        + "|"
    )
    return [line(heads), rule, *map(line, cells), ""]


def _network(setting: Setting) -> list[str]:
    network, pictures, train = setting.network, setting.pictures, setting.config.train
    cells = [
        ["parameters", amount(network.parameters)],
        [f"multiply-adds of a picture, {network.size} pixels, forward", amount(network.macs)],
        ["floating-point operations of a picture, forward and backward", amount(6 * network.macs)],
        [
            f"floating-point operations of a step, {train.batch:,} pictures",
            amount(6 * network.macs * train.batch),
        ],
        [f"activations of a picture, {network.precision}", amount(network.saved.picture, "B")],
        ["beside them, however many pictures: weights cast, statistics", amount(network.saved.batch, "B")],
        [f"training pictures, {pictures.classes:,} classes", f"{pictures.count:,}"],
    ]
    told = f"{network.name}; pictures by {pictures.origin}."
    if train.precision == "auto":
        told += " `train.precision: auto` is taken for bf16."
    return ["## Network", "", *grid(["", ""], cells), *prose(told), ""]


def _memory(setting: Setting) -> list[str]:
    node = setting.cluster.gpus_per_node
    cells = []
    for engine in ENGINES:
        held = state(setting.network, setting.config, node, engine)
        totals = [state(setting.network, setting.config, ranks, engine).total for ranks in (node, *MANY)]
        parts = [held.weights, held.gradients, held.optimizer, held.average, held.copy]
        numbers = [*parts, held.buckets + held.statistics, *totals]
        cells.append([engine_name(engine), *map(_bytes, numbers)])
    heads = ["", "weights", "gradients", "optimizer", "EMA", "copy", "buckets"]
    return [
        f"## State of a GPU, of {node}",
        "",
        *grid([*heads, *(f"on {ranks:,}" for ranks in (node, *MANY))], cells),
        *prose(
            "At a step's peak, besides activations; all of it is fp32 in every precision. *Copy*: the "
            "network in which stage 3, or an EMA, is evaluated. *Buckets*: DeepSpeed's, and batch norm's "
            "statistics. Stages 1 and 2 keep the whole model beside the part that their optimizer changes; "
            "stage 3 has gathered the whole model when backward begins (DeepSpeed 0.19.8 lets go of weights "
            "above 10⁹). Not counted: activations' gradients, CUDA's context, kernels' workspace, the "
            "allocator's gaps, pictures loaded ahead."
        ),
        "",
    ]


def _wire(setting: Setting) -> list[str]:
    node = max(2, setting.cluster.gpus_per_node)
    cells = []
    for engine in ENGINES:
        found = exchanges(setting.network, setting.config, node, engine)
        sums = [sum(each.sent for each in found if each.what == kind) for kind in KINDS]
        cells.append([engine_name(engine), *map(_bytes, [*sums, sum(sums)])])
    return [
        f"## Sent by a GPU in a step, of {node}",
        "",
        *grid(["", *KINDS, "together"], cells),
        "In rings: 2 (n − 1) / n of what is reduced, half of that for what is gathered (Patarasuk and Yuan).",
        "",
    ]


def _time(setting: Setting, rows: Sequence[Row], compared: Sequence[Compared]) -> list[str]:
    heads = ["GPUs", "batch", "a GPU", "steps", "ms a step", "waiting", "pictures/s", "efficiency"]
    heads += ["hours", "GPU-hours", "GPU memory", "read, MB/s"]
    way = "the config's global batch, split" if setting.per_gpu is None else "the same pictures on each GPU"
    name = engine_name(engine_of(setting.config))
    notes = [f"- {each.gpus:,} GPUs: {each.problem}." for each in rows if each.problem]
    if any(_over(setting, each) for each in rows):
        limit = amount(setting.memory, "B")
        notes.append(f"- \\* more than the GPU's {limit}: give more `train.accumulate`, or more GPUs.")
    return [
        f"## Time of {_length(setting.config.train)}: {way}, {name}",
        "",
        *grid(heads, [_cells(setting, each) for each in rows]),
        *notes,
        *([""] if notes else []),
        *_assumed(setting, compared),
        "",
    ]


def _length(train: Train) -> str:
    ends = {"epochs": train.epochs and f"{train.epochs:g}", "steps": train.steps and f"{train.steps:,}"}
    return " or ".join(f"{number} {unit}" for unit, number in ends.items() if number)


def _over(setting: Setting, row: Row) -> bool:
    return setting.memory is not None and row.memory > setting.memory


def _cells(setting: Setting, row: Row) -> list[str]:
    if row.problem:
        return [f"{row.gpus:,}", f"{row.batch:,}", *["–"] * 10]
    return [
        f"{row.gpus:,}",
        f"{row.batch:,}",
        f"{row.pictures:,}",
        f"{row.steps:,}",
        three(1000 * row.step),
        f"{row.waiting / row.step:.1%}",
        f"{row.pictures_per_s:,.0f}",
        f"{row.efficiency:.1%}",
        three(row.hours),
        three(row.gpu_hours),
        amount(row.memory, "B") + ("\\*" if _over(setting, row) else ""),
        f"{row.pictures_per_s * setting.pictures.mean_bytes / 1e6:,.0f}",
    ]


def _assumed(setting: Setting, compared: Sequence[Compared]) -> list[str]:
    rate, cluster = setting.rate, setting.cluster
    ratio = f", in proportion to multiply-adds ({amount(rate.macs)} a picture there)"
    scaled = "" if rate.macs == setting.network.macs else ratio
    decoding = "waiting for pictures" if setting.cores is None else f"reading ({setting.cores} cores decode)"
    least, most = min(one.off for one in compared), max(one.off for one in compared)
    return prose(
        f"One GPU: {rate.pictures_per_s:,.0f} pictures/s at {rate.batch} a step ({rate.origin}){scaled}. "
        f"{1000 * cluster.overhead:g} ms of a step do not depend on its pictures; that a GPU does few "
        f"pictures at a time less well is not modelled otherwise. In a node of {cluster.gpus_per_node} a GPU "
        f"sends {cluster.link / 1e9:g} GB/s, a node {cluster.network / 1e9:g} GB/s, of which {ATTAINED:.0%} "
        f"are attained; a hop takes {1e6 * cluster.latency:g} µs. *Waiting*: the share of a step in which "
        "exchanges go on after backward, two thirds of the arithmetic, has ended. Not in it: stragglers, "
        f"evaluation, checkpoints, {decoding}. **This model's rates are {least:+.0%} to {most:+.0%} off "
        "published ones of several GPUs** (`--check` shows each; nearly all are lower than it says), so "
        "expect some more hours than these."
    )


def _loader(setting: Setting, rows: Sequence[Row]) -> list[str]:
    node = setting.cluster.gpus_per_node
    alone = max((each.pictures_per_s / each.gpus for each in rows if not each.problem), default=0.0)
    cores, read = alone / setting.decoding, alone * setting.pictures.mean_bytes
    text = (
        f"{alone:,.0f} pictures/s a GPU, the most of these rows: {three(cores)} cores at "
        f"{setting.decoding:g} pictures/s a core, {amount(read, 'B')}/s at "
        f"{setting.pictures.mean_bytes / 1000:,.1f} kB a picture. A node of {node}: "
        f"{math.ceil(node * cores)} cores, {amount(node * read, 'B')}/s. *read* above is what the file "
        "system must give to all nodes together, unless the pictures stay in their memory."
    )
    return ["## Feeding", "", *prose(text), ""]


def _bytes(number: float) -> str:
    return amount(number, "B") if number else "–"
