"""The probe's benchmark as Markdown: what it was measured on, and each section."""

from typing import Any

from pipeline.bench.probe.path import WORTH
from pipeline.bench.table import heading, listed, rows, spread


def markdown(results: dict[str, Any]) -> str:
    """:param results: as ``kept.Kept`` has them."""
    machine, setting = results["machine"], results["setting"]
    lines = heading("Probe benchmark", machine, setting["threads"], listed(machine["versions"]))
    for name, write in (("path", _path), ("extraction", _extraction)):
        if name in results:
            lines += write(results[name], setting)
            when = results["measured"][name]
            lines += [f"Measured {when['date']}, load before the start {when['load']:g}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _path(one: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    told, chosen, some = one["told"], one["chosen"], one["lambdas"]
    cells = [["ours, 45 λ", f"{one['ours_s']:.1f}", _steps(told["ours"]["path"]), "", ""]]
    for name, words in (("cold", "at its defaults, one by one"), ("warm", "centred, scaled, warm-started")):
        short = f"{one[f'{name}_short']} of {some}"
        seconds, steps = f"{one[f'{name}_s']:.1f}", _steps(told[name]["path"])
        cells.append(
            [f"scikit-learn, {words}, {some} λ", seconds, steps, short, _above(one[f"{name}_above"])]
        )
    whole = "all 45" if some == 45 else f"{some} of the 45, evenly in log λ"
    return [
        "## The path over λ",
        "",
        f"{setting['train']:,} pictures of {one['width']:,} features, {setting['classes']} classes; λ chosen "
        f"on {setting['val']:,}. Features of a {setting['model']} with random weights over windows of "
        f"photographs; their covariance has a participation ratio of {one['rank']:.1f}.",
        "",
        *rows(
            ["", "seconds", "iterations", "ended by its limit", "F above ours, median and greatest"], cells
        ),
        f"scikit-learn was fitted at {whole}. For one λ, on average, ours is {one['faster']:.1f} × as fast "
        f"as its defaults, and {one['faster_than_warm']:.1f} × as the warm-started. Our F is at most "
        f"{one['ours_above']:.1e} above theirs, relative ({WORTH:g} counts as the same). Of these λ, "
        f"{chosen['ours']:.3g} is chosen by ours, {chosen['cold']:.3g} by the defaults, {chosen['warm']:.3g} "
        f"warm-started; of all 45, {chosen['ours_of_all']:.3g} by ours.",
        "",
    ]


def _steps(path: list[dict[str, Any]]) -> str:
    return f"{sum(one['steps'] for one in path):,}"


def _above(shares: list[float]) -> str:
    middle = sorted(shares)[len(shares) // 2]
    return f"{middle:.1e}, {max(shares):.1e}"


def _extraction(one: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    titles = {"loader": "the loader alone", "forward": "the forward pass alone", "features": "extraction"}
    cells = [[title, spread(one[name], ",.1f")] for name, title in titles.items()]
    return [
        "## Extraction",
        "",
        f"{setting['extracted']} JPEGs of 500×375, {setting['model']} at {setting['size']}², "
        f"batches of {setting['batch']}; medians [least, greatest] of {setting['rounds']} rounds, from the "
        "second batch on:",
        "",
        *rows(["", "pictures/s"], cells),
        f"Of the slower of the two, extraction reaches {spread(one['share'], '.3f')}.",
        "",
    ]
