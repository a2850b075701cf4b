"""The GPU's benchmark as Markdown: a part a section, the goals beside it, and what was left out."""

from collections.abc import Callable
from typing import Any

from pipeline.bench.gpu import goals, kernels, roofline, throughput
from pipeline.bench.gpu.cases import missing
from pipeline.bench.step.plan import OURS
from pipeline.bench.table import heading, listed, rows, spread


def markdown(results: dict[str, Any]) -> str:
    """:param results: as ``kept.Kept`` has them."""
    machine, setting = results["machine"], results["setting"]
    lines = heading("GPU benchmark", machine, setting["threads"], listed(machine["versions"]))
    lines += [f"Device: {machine.get('gpu') or setting['device']}.", ""]
    for name, (title, write) in _WRITERS.items():
        if name not in results:
            lines += [f"## {title}", "", "Not asked for.", ""]
            continue
        found, when = results[name], results["measured"][name]
        lines += [f"## {title}", "", *write(found, setting)]
        lines += [f"- {word}: {found[word]}." for word in ("failed", "left") if word in found]
        lines += ["", f"Measured {when['date']}, load before the start {when['load']:g}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _tests(found: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    cells = []
    for one in found.get("outcomes", []):
        seen = ", ".join(f"{key} {_short(value)}" for key, value in one["seen"].items())
        cells.append([f"`{one['name']}`", one["outcome"], f"{one['seconds']:.1f}", one["why"] or seen])
    counts = ", ".join(f"{count} {outcome}" for outcome, count in found.get("counts", {}).items())
    return [f"{counts or 'None ran'}.", "", *rows(["test", "outcome", "s", "why, or what was seen"], cells)]


def _throughput(found: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    known, lines = throughput.summary(found), []
    wanted = {
        "synthetic": ("our loop on noise, pictures/s", f"{goals.FIRST_MARK:,.0f} on one H200"),
        "faster": ("× torchvision's step", f"{goals.FASTER}"),
        "loader": ("the loader alone, its best setting, pictures/s", ""),
        "whole": ("end to end, pictures/s", ""),
        "share": ("end to end, of the lower of the two", f"{goals.SHARE}"),
    }
    cells = [
        [title, f"{known[key]:,.2f}" if key in ("faster", "share") else f"{known[key]:,.0f}", goal]
        for key, (title, goal) in wanted.items()
        if key in known
    ]
    lines += rows([f"{setting['model']}, {setting['batch']} of {setting['size']}²", "", "goal"], cells)
    lines += [f"- {title}: {rate:,.0f} pictures/s." for _, title, rate in goals.PUBLISHED] + [""]
    contest = found.get("contest", {})
    if "faster" in contest:
        how = "ours, compiled," if contest["compiled"] else "ours, not compiled,"
        lines += [
            f"In turns, {setting['rounds']} rounds of {setting['steps']} steps: {how} "
            f"{spread(contest[OURS], ',.0f')}; torchvision's {spread(contest['torchvision'], ',.0f')}; ratio "
            f"{spread(contest['faster'], '.2f')} (within rounds).",
            "",
        ]
    lines += _steps(found.get("steps", {}).get("cases", {}))
    lines += _loader(found.get("loader", {}))
    whole = found.get("whole", {})
    if "rate" in whole:
        lines += [
            f"End to end with {whole['case']}: {spread(whole['rate'], ',.0f')}; waiting for pictures "
            f"{whole['data_wait']:.1%} of the time, forward {whole['forward']:.1%}, backward "
            f"{whole['backward']:.1%}, optimizer {whole['optimizer']:.1%}.",
            "",
        ]
    for name in ("contest", "steps", "loader", "whole"):
        lines += [
            f"- {name}: {found[name][word]}." for word in ("failed", "left") if word in found.get(name, {})
        ]
    return lines


def _steps(cases: dict[str, Any]) -> list[str]:
    """Pictures/s of steps, the first step's seconds and the peak of memory; then what has no figures."""
    cells = [
        [
            name,
            spread(one["rate"], ",.0f"),
            f"{1000 * one['step_s']:.1f}",
            f"{one['first_s']:.0f}",
            "" if one["peak_gb"] is None else f"{one['peak_gb']:.1f}",
        ]
        for name, one in cases.items()
        if not missing(one)
    ]
    heads = ["step", "pictures/s", "ms", "to the first step, s", "GB at the peak"]
    return [*(rows(heads, cells) if cells else []), *_without(cases)]


def _without(cases: dict[str, Any]) -> list[str]:
    """Why there are no figures; a line for all that have the same reason."""
    reasons: dict[str, list[str]] = {}
    for name, one in cases.items():
        if missing(one):
            reasons.setdefault(one.get("failed") or one["left"], []).append(name)
    lines = [f"- {'; '.join(names)}: {why}." for why, names in reasons.items()]
    return [*lines, ""] if lines else []


def _loader(found: dict[str, Any]) -> list[str]:
    cases = found.get("cases", {})
    cells = [
        [name, spread(one["rate"], ",.0f"), f"{one['cores_busy']:.1f}", f"{one['first_s']:.1f}"]
        for name, one in cases.items()
        if not missing(one)
    ]
    heads = [
        f"the loader alone, {found.get('pictures', 0):,} photographs",
        "pictures/s",
        "cores busy",
        "first batch, s",
    ]
    return [*(rows(heads, cells) if cells else []), *_without(cases)]


def _models(found: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    return [f"Batches of {setting['models_batch']}.", "", *_steps(found.get("cases", {}))]


def _roofline(found: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    limits, bounds, cases = roofline.ceilings(found), roofline.bounds(found), found.get("cases", {})
    lines = []
    if limits:
        lines = [f"Ceilings: a copy moves {limits[0] / 1e12:.2f} TB/s, a matrix product does "]
        lines = [f"{lines[0]}{limits[1] / 1e12:,.0f} TFLOP/s.", ""]
    profiles = {name: cases[name] for name in roofline.PROFILES if not missing(cases.get(name))}
    kinds = list(
        dict.fromkeys(
            [*found.get("work", {}), *(kind for one in profiles.values() for kind in one["classes"])]
        )
    )
    cells = []
    for kind in kinds:
        work, bound = found.get("work", {}).get(kind), bounds.get(kind)
        row = [
            kind,
            f"{work['bytes'] / 1e9:.2f}" if work else "",
            f"{work['flops'] / 1e12:.2f}" if work else "",
        ]
        row += [f"{bound[key]:.2f}" if bound else "" for key in ("alone", "fused")]
        cells.append(row + [f"{one['classes'].get(kind, 0.0):.2f}" for one in profiles.values()])
    sums = [sum(bound[key] for bound in bounds.values()) for key in ("alone", "fused")]
    total = ["**all**", "", "", *(f"**{one:.2f}**" if bounds else "" for one in sums)]
    cells.append([*total, *(f"**{one['step_ms']:.2f}**" for one in profiles.values())])
    heads = [
        "of a step",
        "GB",
        "TFLOP",
        "at the ceilings, ms",
        "the same, fused, ms",
        *(f"{name}: ms" for name in profiles),
    ]
    lines += rows(heads, cells)
    for name, one in profiles.items():
        first = next((kind for kind in one["classes"] if kind != kernels.IDLE), "")
        idle = one["classes"].get(kernels.IDLE, 0.0) / one["step_ms"]
        lines.append(f"- {name}: most of it {first}; nothing ran in {idle:.1%} of the time.")
    return [*lines, *_without(cases)]


def _cifar(found: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    cells = []
    for name, one in found.get("recipes", {}).items():
        error = f"{one['error']:.2f}" if "error" in one else ""
        wanted = (
            f"{goals.PAPER[name]:.2f}"
            if name in goals.PAPER
            else f"{goals.OWN[name]:.2f}, here on a CPU"
            if name in goals.OWN
            else ""
        )
        rate = f"{one['images_per_s']:,.0f}" if "images_per_s" in one else ""
        cells.append(
            [name, one["state"], f"{one.get('step', 0):,}", f"{one.get('epoch', 0):.1f}", rate, error, wanted]
        )
    lines = (
        rows(["recipe", "state", "step", "epoch", "pictures/s", "test error, %", "beside"], cells)
        if cells
        else []
    )
    if "chosen" in found:
        how = "several at once" if found["chosen"] == "together" else "one at a time"
        lines += [
            f"Pictures/s of the first alone {found['alone']:,.0f}, of several at once, together, "
            f"{found['together']:,.0f}: {how} from there on.",
            "",
        ]
    for name, one in found.get("recipes", {}).items():
        if "watched" in one:
            seconds = one["to_accuracy"]
            when = f"94 % after {seconds:.1f} s" if seconds is not None else "94 % not reached"
            lines += [f"- {name}: {when}, at most {one['watched']:.2%} of the test pictures right."]
            lines += [f"- {goals.AIRBENCH}."]
        if "why" in one:
            lines += [f"- {name}: {one['why']}."]
    return [*lines, ""]


def _probe(found: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    path = found.get("cases", {}).get("path")
    if missing(path):
        return _without(found.get("cases", {}))
    gigabytes = "" if path["peak_gb"] is None else f" {path['peak_gb']:.0f} GB at the peak."
    short = sum(not one["converged"] for one in path["told"])
    return [
        f"{setting['features']:,} × {setting['width']:,} features, {setting['classes']:,} classes (made); "
        f"{path['done']} of {setting['lambdas']} λ, from the strongest on: {path['prepare_s']:.1f} s to "
        f"prepare, {path['fit_s']:.1f} s to fit ({path['iterations']:,} iterations), "
        f"{path['score_s']:.1f} s to score {setting['val']:,} pictures on the host.{gigabytes} Best λ "
        f"{path['best']['lam']:.3g}, top-1 {path['best']['top1']:.3f}; {short} missed their tolerance.",
        "",
    ]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


Writer = Callable[[dict[str, Any], dict[str, Any]], list[str]]
_WRITERS: dict[str, tuple[str, Writer]] = {
    "tests": ("Tests marked gpu", _tests),
    "throughput": ("Throughput", _throughput),
    "roofline": ("What bounds the step", _roofline),
    "models": ("Other networks", _models),
    "cifar": ("CIFAR-10", _cifar),
    "probe": ("The frozen probe", _probe),
}
