"""Training steps on one batch of noise, one kind after the other: ours, the bare one, torchvision's."""

import gc
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from statistics import median

import torch

from pipeline.bench.gpu.cases import Case, Found, work_off
from pipeline.bench.ratios import Spread
from pipeline.bench.step.guests import bare
from pipeline.bench.step.ours import steady_batch
from pipeline.bench.step.rivals import torchvision
from pipeline.bench.step.setting import Setting
from pipeline.train.engine import build_engine
from pipeline.train.ranks import Ranks, join
from pipeline.train.start import build_model

WARM = 5
"""Steps after the first one that go unmeasured: kernels are chosen, graphs are recorded."""


def asked(started: float, cases: list[Case], until: float, device: str) -> dict[str, bool]:
    with join(device) as ranks:
        torch.backends.cudnn.benchmark = True  # as in our loop and in torchvision's script
        return work_off(cases, until, lambda case: rate_of(case, ranks))


def rate_of(case: Case, ranks: Ranks) -> Found:
    """Pictures/s as {median, low, high}, all rates; seconds to the first step's end; GB at most."""
    try:
        if ranks.device.type == "cuda":  # CUDA only
            torch.cuda.reset_peak_memory_stats()
        begun = time.perf_counter()
        step = made(case, ranks)
        seconds_of(step, 1, ranks.device)
        first = time.perf_counter() - begun
        seconds_of(step, WARM, ranks.device)
        count = max(3, math.ceil(case["seconds"] / max(seconds_of(step, 3, ranks.device) / 3, 1e-6)))
        rates = [
            count * case["batch"] / seconds_of(step, count, ranks.device) for _ in range(case["repeats"])
        ]
        peak = torch.cuda.max_memory_allocated() / 1e9 if ranks.device.type == "cuda" else None
        told = {
            "rate": asdict(Spread.of(rates)),
            "rates": rates,
            "steps": count,
            "first_s": first,
            "peak_gb": peak,
        }
        return told | {"step_s": case["batch"] / median(rates)}
    finally:
        step = None
        forget()


def forget() -> None:
    """Makes room for the next one, and lets it be compiled as if it were the first."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():  # CUDA only
        torch.cuda.empty_cache()


def made(case: Case, ranks: Ranks) -> Callable[[], None]:
    """A step of the case's kind; it waits for the device only where it always does."""
    words = {key: case[key] for key in ("model", "size", "batch", "classes", "precision")}
    changes = {"train.compile": case["mode"] is not None}
    setting = Setting(**words, folder="unused", rounds=1, steps=1, device=ranks.device.type, changes=changes)
    batch = steady_batch(setting, ranks.device)
    if case["kind"] == "torchvision":
        return torchvision(setting, ranks.device, batch)
    if case["kind"] == "ours":
        config = setting.config(1)
        model = build_model(config, [str(number) for number in range(case["classes"])], ranks)
        engine = build_engine(model, config, ranks)
        engine.prime(tuple(batch.images.shape))
        return lambda: engine.step([batch], config.optim.lr)
    mode = None if case["mode"] == "default" else case["mode"]
    step = bare(setting, ranks.device, batch, mode=mode, fused=case.get("fused", True))
    if mode is None:
        return step

    def marked() -> None:
        torch.compiler.cudagraph_mark_step_begin()  # what the step before returned may be written over
        step()

    return marked


def seconds_of(step: Callable[[], None], count: int, device: torch.device) -> float:
    """Of so many steps one after the other, from an empty queue to an empty queue."""
    if device.type == "cuda":  # CUDA only
        torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(count):
        step()
    if device.type == "cuda":  # CUDA only
        torch.cuda.synchronize()
    return time.perf_counter() - begun
