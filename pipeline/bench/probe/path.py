"""The path over lambda: ours, and scikit-learn's LogisticRegression one by one, or warm-started.

Each in a process of its own. Seconds are of fitting, with all that is prepared for it, and of scoring the
validation pictures; what a solution is worth (F, in float64 on the features as they are) is not measured
time.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp

from pipeline.bench.probe.plan import GRID, Plan
from pipeline.memory import keep_memory
from pipeline.progress import Bar, say

WORTH = 1e-4
"""Relative difference of F up to which two solutions are the same."""


def count(plan: Plan) -> int:
    return 4


def run(plan: Plan, bar: Bar) -> Iterator[dict[str, Any]]:
    """Each by itself, on the same features and cores."""
    folder = plan.work / "probe"
    words = {"folder": str(folder), "classes": plan.classes}
    bar.advance(0, note="features")
    made = plan.child(
        "made:make",
        folder=str(folder),
        photographs=[str(path) for paths in plan.photographs.values() for path in paths],
        counts={"train": plan.train, "val": plan.val},
        classes=plan.classes,
        side=plan.side,
        model=plan.model,
    )
    bar.advance()
    told = {}
    for name in ("ours", "cold", "warm"):
        bar.advance(0, note=name)
        lambdas = [float(lam) for lam in GRID] if name == "ours" else plan.chosen()
        told[name] = plan.child(f"path:{name}", lambdas=lambdas, **words)
        bar.advance()
    found = made | figures(told) | {"told": told}
    say(f"45 lambdas: {found['ours_s']:.1f} s; scikit-learn takes {found['faster']:.1f} times as long")
    yield found


def figures(told: dict[str, Any]) -> dict[str, Any]:
    """From what the processes told: seconds, ratios, and how far solutions are apart.

    ``faster``: scikit-learn's mean time for one of its lambdas, over our mean time for one of all.
    ``ours_above``: our F over theirs, less 1, where that is greatest; ``cold_above``: theirs over ours.
    """
    ours = {one["lam"]: one for one in told["ours"]["path"]}
    cold, warm = told["cold"]["path"], told["warm"]["path"]
    mean = told["ours"]["seconds"] / len(ours)
    theirs = {name: told[name]["seconds"] / len(told[name]["path"]) for name in ("cold", "warm")}
    common = {one["lam"] for one in cold}
    return {
        "ours_s": told["ours"]["seconds"],
        "cold_s": told["cold"]["seconds"],
        "warm_s": told["warm"]["seconds"],
        "lambdas": len(cold),
        "faster": theirs["cold"] / mean,
        "faster_than_warm": theirs["warm"] / mean,
        "ours_above": max(ours[one["lam"]]["value"] / one["value"] - 1 for one in (*cold, *warm)),
        "cold_above": [one["value"] / ours[one["lam"]]["value"] - 1 for one in cold],
        "warm_above": [one["value"] / ours[one["lam"]]["value"] - 1 for one in warm],
        "cold_short": sum(one["short"] for one in cold),
        "warm_short": sum(one["short"] for one in warm),
        "chosen": {
            "ours": _best(told["ours"]["path"], common),
            "cold": _best(cold),
            "warm": _best(warm),
            "ours_of_all": _best(told["ours"]["path"]),
        },
    }


def _best(path: list[dict[str, Any]], among: set[float] | None = None) -> float:
    """By top-1, then by cross-entropy, as the probe chooses."""
    some = [one for one in path if among is None or one["lam"] in among]
    return max(some, key=lambda one: (one["top1"], -one["loss"], one["lam"]))["lam"]


def ours(started: float, folder: str, classes: int, lambdas: list[float]) -> dict[str, Any]:
    from pipeline.transfer.probe.choice import MAX_ITERATIONS, TOLERANCE
    from pipeline.transfer.probe.problem import Problem

    keep_memory()  # as every job of ours does
    features, labels = _read(folder, "train")
    begin = time.perf_counter()
    problem = Problem(features, labels, classes)
    prepared = time.perf_counter() - begin

    def fit(lam: float) -> tuple[np.ndarray, np.ndarray, int, bool]:
        found, converged, steps = problem.solve(lam, TOLERANCE, MAX_ITERATIONS)
        return found.weight, found.bias, steps, not converged

    return _timed(folder, lambdas, fit, prepared)


def cold(started: float, folder: str, classes: int, lambdas: list[float]) -> dict[str, Any]:
    """At scikit-learn's defaults, on the features as they are: float32."""
    from sklearn.linear_model import LogisticRegression

    keep_memory()
    features, labels = _read(folder, "train")

    def fit(lam: float) -> tuple[np.ndarray, np.ndarray, int, bool]:
        return _fitted(LogisticRegression(C=1 / (2 * lam)), features, labels)

    return _timed(folder, lambdas, fit, 0.0)


def warm(started: float, folder: str, classes: int, lambdas: list[float]) -> dict[str, Any]:
    """As one would make it faster: centred, of about length 1, each solution the next one's start."""
    from sklearn.linear_model import LogisticRegression

    keep_memory()
    features, labels = _read(folder, "train")
    begin = time.perf_counter()
    mean = features.mean(axis=0)
    inputs = features - mean
    scale = float(np.linalg.norm(inputs)) / len(inputs) ** 0.5
    inputs /= scale
    prepared = time.perf_counter() - begin
    model = LogisticRegression(warm_start=True)

    def fit(lam: float) -> tuple[np.ndarray, np.ndarray, int, bool]:
        model.set_params(C=scale**2 / (2 * lam))
        weight, bias, steps, short = _fitted(model, inputs, labels)
        weight = weight / scale
        return weight, bias - weight @ mean, steps, short

    return _timed(folder, lambdas, fit, prepared)


def _fitted(model: Any, features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, bool]:
    """Weight, bias, iterations, and whether its limit of iterations ended it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(features, labels)
    return model.coef_.copy(), model.intercept_.copy(), int(model.n_iter_[0]), bool(caught)


def _timed(folder: str, lambdas: list[float], fit: Callable, seconds: float) -> dict[str, Any]:
    """From the strongest penalty to the weakest. :param seconds: that preparing took."""
    (features, labels), (val, val_labels) = _read(folder, "train"), _read(folder, "val")
    exact = features.astype(np.float64)
    path = []
    for lam in sorted(lambdas, reverse=True):
        begin = time.perf_counter()
        weight, bias, steps, short = fit(lam)
        logits = val @ weight.T.astype(np.float32) + bias
        top1 = float(np.mean(logits.argmax(axis=1) == val_labels))
        took = time.perf_counter() - begin
        seconds += took
        loss = float(np.mean(_losses(logits.astype(np.float64), val_labels)))
        weight = weight.astype(np.float64)
        value = float(_losses(exact @ weight.T + bias, labels).sum() + lam * (weight**2).sum())
        path.append(
            {"lam": lam, "seconds": took, "steps": steps, "short": short, "value": value}
            | {"top1": top1, "loss": loss}
        )
    return {"seconds": seconds, "path": path[::-1]}


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]


def _read(folder: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(Path(folder) / f"{split}.npz") as found:
        return found["features"], found["labels"].astype(np.int64)
