"""Which steps there are to measure: cases for ``steps``."""

from typing import Any

from pipeline.bench.gpu.cases import Case
from pipeline.bench.gpu.plan import Plan

STEPS = "pipeline.bench.gpu.steps:asked"
EAGER, COMPILED, TUNED = 12.0, 70.0, 200.0
"""Seconds with which a step that is not compiled, is compiled, or is tuned by trying, may still be begun."""


def case(
    plan: Plan, name: str, kind: str, model: str, batch: int, mode: str | None = None, **more: Any
) -> Case:
    """:param kind: "ours" (the engine's step), "bare" (forward, backward, fused SGD) or "torchvision".
    :param mode: of torch.compile; none = not compiled.
    """
    least = EAGER if mode is None else TUNED if "max-autotune" in mode else COMPILED
    precision = plan.rival_precision if kind == "torchvision" else plan.precision
    about = {
        "name": name,
        "kind": kind,
        "model": model,
        "batch": batch,
        "size": plan.sizes.size,
        "mode": mode,
    }
    about |= {"classes": plan.sizes.classes, "precision": precision, "least": least if plan.gpu else 0.0}
    return about | {"seconds": plan.sizes.seconds, "repeats": plan.sizes.repeats} | more


def of_model(plan: Plan) -> list[Case]:
    """Batch sizes without the compiler, then what torch's own means give at one of them."""
    sizes = plan.sizes
    cases = [case(plan, f"bare, {batch}", "bare", sizes.model, batch) for batch in sizes.batches]
    cases.append(case(plan, "bare, SGD not fused", "bare", sizes.model, sizes.batch, fused=False))
    cases.append(case(plan, "ours", "ours", sizes.model, sizes.batch))
    cases.append(case(plan, "ours, compiled", "ours", sizes.model, sizes.batch, "default"))
    return cases + [
        case(plan, f"bare, compiled: {mode}", "bare", sizes.model, sizes.batch, mode) for mode in sizes.modes
    ]


def of_others(plan: Plan) -> list[Case]:
    """Of the other networks: ours beside torchvision's, then what takes the compiler's time."""
    models, batch = plan.sizes.models, plan.sizes.models_batch
    kinds = [("torchvision", "torchvision", None), ("ours", "ours", None)]
    order = [(model, *kind) for model in models for kind in kinds]
    order += [(model, "ours, compiled", "ours", "default") for model in models]
    return [case(plan, f"{model}: {title}", kind, model, batch, mode) for model, title, kind, mode in order]
