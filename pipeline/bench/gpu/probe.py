"""The frozen probe's path over 45 lambdas on 100,000 x 2,048 features of 1,000 classes, on the device.

The features are made: a class has a centre in 256 dimensions, a picture lies around it, and both are mixed
into 2,048 numbers, of which the negative ones become 0, as behind a ReLU. Neighbouring classes overlap.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.bench.gpu.cases import Case, Found, missing, work_off, worked
from pipeline.bench.gpu.plan import Plan

FUNCTION = "pipeline.bench.gpu.probe:asked"
LATENT, CENTRES, OWN = 256, 0.35, 0.3
"""Dimensions; how far centres lie from each other beside a picture from its centre; noise of each number."""
PATH = "path"
ROWS = 10_000
"""Pictures that are made at once."""


def run(plan: Plan, before: dict[str, Any], until: float) -> Iterator[dict[str, Any]]:
    """``cases``: the path, see ``path``."""
    sizes = plan.sizes
    case = {"name": PATH, "train": sizes.features, "val": sizes.val, "width": sizes.width}
    case |= {
        "classes": sizes.classes,
        "lambdas": sizes.lambdas,
        "until": until - 5.0,
        "least": 20.0 * plan.gpu,
    }
    for found in worked(plan, FUNCTION, [case], before.get("cases", {}), until):
        yield {
            "cases": found,
            "complete": not missing(found.get(PATH)) and found[PATH]["done"] == sizes.lambdas,
        }


def asked(started: float, cases: list[Case], until: float, device: str) -> dict[str, bool]:
    return work_off(cases, until, lambda case: path(case, device))


def path(case: Case, device: str) -> Found:
    """Seconds of preparing, of fitting and of scoring, of as many lambdas as there was time for,
    from the strongest penalty on; top-1 of each, and the best."""
    import torch

    from pipeline.transfer.probe import LAMBDAS
    from pipeline.transfer.probe.choice import MAX_ITERATIONS, TOLERANCE
    from pipeline.transfer.probe.problem import Problem

    features, labels = made(case["train"], case["width"], case["classes"], 1)
    val, wanted = made(case["val"], case["width"], case["classes"], 2)
    if device == "cuda":  # CUDA only
        torch.ones(1, device=device)  # starting the device is no part of it
        torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    problem = Problem(features, labels, case["classes"], device)
    prepared = time.perf_counter() - begun
    told, every = [], LAMBDAS[:: max(1, len(LAMBDAS) // case["lambdas"])][: case["lambdas"]]
    for lam in sorted(map(float, every), reverse=True):
        begun = time.perf_counter()
        found, converged, steps = problem.solve(lam, TOLERANCE, MAX_ITERATIONS)  # ends on the host
        fitted = time.perf_counter()
        top1 = float(np.mean(found.predict(val) == wanted))
        one = {"lam": lam, "fit_s": fitted - begun, "score_s": time.perf_counter() - fitted}
        told.append(one | {"iterations": steps, "converged": converged, "top1": top1})
        if time.time() > case["until"]:
            break
    best = max(told, key=lambda one: (one["top1"], one["lam"]))
    return {
        "prepare_s": prepared,
        "fit_s": sum(one["fit_s"] for one in told),
        "score_s": sum(one["score_s"] for one in told),
        "iterations": sum(one["iterations"] for one in told),
        "done": len(told),
        "best": {key: best[key] for key in ("lam", "top1")},
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None,
        "told": told,
    }


def made(count: int, width: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) float32 and (N,) int64; the same centres and the same mixing whatever the seed."""
    rule, draws = np.random.default_rng(0), np.random.default_rng(seed)
    latent = min(LATENT, width)
    centres = CENTRES * rule.standard_normal((classes, latent), np.float32)
    mixing = rule.standard_normal((latent, width), np.float32) / latent**0.5
    labels = np.arange(count) % classes
    features = np.empty((count, width), np.float32)
    for start in range(0, count, ROWS):
        own = labels[start : start + ROWS]
        near = centres[own] + draws.standard_normal((len(own), latent), np.float32)
        noise = OWN * draws.standard_normal((len(own), width), np.float32)
        features[start : start + ROWS] = np.maximum(near @ mixing + noise, 0)
    return features, labels
