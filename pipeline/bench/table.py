"""The loader's benchmark as Markdown: one line a contestant, what it was measured on, and how; and tables."""

from typing import Any

from pipeline.bench.timing import LOOKED_AT


def markdown(results: dict[str, Any]) -> str:
    """:param results: what ``loading.run`` returns, with ``machine`` (``machine.describe``)."""
    setting, machine = results["setting"], results["machine"]
    full = [
        one
        for one in results["contestants"]
        if one["threads"] == setting["threads"] or one["kind"] == "limit"
    ]
    ran = [one for one in full if not one["failed"]]
    rates = [f"{rate:g}" for rate in setting["gpu_rates"]]
    heads = ["loader", "kB a picture", "pictures/s", "per core", "per CPU second", "ratio", "cores busy"]
    heads += [f"cores for {float(rate):,.0f}/s" for rate in rates]
    lines = rows(heads, [_cells(one, rates) for one in ran])
    versions = listed(machine["versions"])
    if machine.get("ffcv"):
        versions += f"; FFCV with {listed(machine['ffcv'])}"
    text = [
        *heading("Loader benchmark", machine, setting["threads"], versions),
        *lines,
        _how(setting),
        "",
        *_scaling(results),
        *[f"- {one['name']} did not run: {one['failed']}." for one in full if one["failed"]],
    ]
    return "\n".join(text).rstrip() + "\n"


def heading(title: str, machine: dict[str, Any], threads: int, versions: str) -> list[str]:
    """On what was measured, and how again; lines, the last one empty.

    :param machine: ``machine.describe``. :param threads: of everybody.
    """
    return [
        f"# {title}",
        "",
        f"{machine['processor']}, {threads} of {machine['cores_of_machine']} cores, "
        f"{machine['memory_gib']:g} GiB, {machine['date']}. Load before the start: {machine['load']:g}. "
        f"{versions}.",
        "",
        f"    {machine['command']}",
        "",
    ]


def rows(heads: list[str], cells: list[list[str]]) -> list[str]:
    """A Markdown table, numbers to the right; lines, the last one empty."""
    lines = ["| " + " | ".join(heads) + " |", "|:--|" + "--:|" * (len(heads) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in cells), ""]


def spread(values: dict[str, float], shown: str, scale: float = 1.0) -> str:
    """'median [low, high]' of {median, low, high}, each times ``scale`` and formatted as ``shown`` says."""
    median, low, high = (f"{scale * values[key]:{shown}}" for key in ("median", "low", "high"))
    return f"{median} [{low}, {high}]"


def listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _cells(one: dict[str, Any], rates: list[str]) -> list[str]:
    rate, ratio = one["rate"], one["ratio"]
    return [
        f"{one['title']} (`{one['name']}`)",
        f"{one['kilobytes']:.0f}",
        spread(rate, ",.0f"),
        f"{one['per_core']['median']:,.0f}",
        f"{one['per_cpu_second']['median']:,.0f}",
        spread(ratio, ".2f"),
        f"{one['cores_busy']:.2f}",
        *[f"{one['cores_for'][wanted]:.1f}" for wanted in rates],
    ]


def _how(setting: dict[str, Any]) -> str:
    one = setting
    return (
        f"Medians [least, greatest] of {one['rounds']} rounds of {one['seconds']:g} s. *Ratio*: to "
        f"`{one['reference']}`, taken within each round. {one['pictures']:,} pictures of "
        f"{one['kilobytes']:.0f} kB, from the page cache; batches of {one['batch']}, "
        f"{one['size']}x{one['size']}, float32, normalised, randomly cut and flipped. Every round of every "
        f"contestant is a process of its own, bound to the same {one['threads']} cores with as many threads "
        "or workers; contestants take turns, in every second round backwards. The first "
        f"{LOOKED_AT} batches and {one['warm_up']:g} s after them are not measured, for all alike. "
        "*Per CPU second*: of the process and its workers; *cores busy*: their CPU seconds per second. Well "
        "below the cores it has, it waited, or something else ran. *Cores for*: the GPU's rate divided by "
        "the rate per core; it assumes that rates grow in proportion to cores."
    )


def _scaling(results: dict[str, Any]) -> list[str]:
    """A table of pictures/s by threads, for those that were measured with several."""
    by_name: dict[str, dict[int, float]] = {}
    for one in results["contestants"]:
        if not one["failed"]:
            by_name.setdefault(one["name"], {})[one["threads"]] = one["rate"]["median"]
    several = {name: rates for name, rates in by_name.items() if len(rates) > 1}
    if not several:
        return []
    threads = sorted({count for rates in several.values() for count in rates})
    cells = [
        [f"`{name}`", *(f"{rates[count]:,.0f}" if count in rates else "" for count in threads)]
        for name, rates in several.items()
    ]
    return rows(["pictures/s with threads", *map(str, threads)], cells)
