"""In roofline's process: what the device can do at most, measured, and what a step spends its time on."""

import json
import tempfile
from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from pipeline.bench.gpu import kernels
from pipeline.bench.gpu.cases import Case, Found, work_off
from pipeline.bench.gpu.steps import WARM, forget, made, seconds_of
from pipeline.train.ranks import Ranks, join

TIMES = 20


def asked(started: float, cases: list[Case], until: float, device: str) -> dict[str, bool]:
    measures = {"copy": copied, "matrix": multiplied, "profile": profiled}
    with join(device) as ranks:
        torch.backends.cudnn.benchmark = True
        return work_off(cases, until, lambda case: measures[case["what"]](case, ranks))


def copied(case: Case, ranks: Ranks) -> Found:
    """Bytes/s of a copy on the device, those read and those written."""
    source = torch.empty(case["bytes"], dtype=torch.uint8, device=ranks.device).zero_()
    target = torch.empty_like(source)
    seconds = _best(lambda: target.copy_(source), ranks)
    return {"bytes_per_s": 2 * case["bytes"] / seconds}


def multiplied(case: Case, ranks: Ranks) -> Found:
    """FLOP/s of a product of two square matrices, random bf16 (fp32 on a CPU)."""
    side, dtype = case["side"], torch.bfloat16 if ranks.device.type == "cuda" else torch.float32
    one, other = (torch.randn(side, side, device=ranks.device).to(dtype) for _ in range(2))
    seconds = _best(lambda: one @ other, ranks)
    return {"flop_per_s": 2 * side**3 / seconds}


def profiled(case: Case, ranks: Ranks) -> Found:
    """See ``kernels.table``."""
    gpu = ranks.device.type == "cuda"
    try:
        step = made(case, ranks)
        seconds_of(step, 1 + WARM, ranks.device)
        activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * gpu]
        with profile(activities=activities) as traced:
            seconds_of(step, case["steps"], ranks.device)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            traced.export_chrome_trace(str(file))
            return kernels.table(json.loads(file.read_text()), case["steps"], gpu)
    finally:
        step = traced = None
        forget()


def _best(work, ranks: Ranks) -> float:
    """Seconds of one call: the median of five rows of ``TIMES``."""
    seconds_of(work, 3, ranks.device)
    return median(seconds_of(work, TIMES, ranks.device) / TIMES for _ in range(5))
