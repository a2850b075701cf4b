"""What our step does besides forward, backward and optimizer: each thing called alone, many times.

Alone, tensors lie in the processor's caches, as far as they fit; within a step they may not.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from pipeline.bench.step.setting import Setting
from pipeline.bench.step.watch import Watch
from pipeline.config import TrainConfig
from pipeline.models import build
from pipeline.monitor.metrics import MetricsFile
from pipeline.train.engine.ema import Ema
from pipeline.train.loop import seed_step
from pipeline.train.meter import Meter
from pipeline.train.optim import learning_rate
from pipeline.train.phases import Phases
from pipeline.train.ranks import Ranks

CALLS = 50


def parts(setting: Setting, config: TrainConfig, ranks: Ranks) -> dict[str, float]:
    """Median seconds of a call, by what it is for."""
    model = build(setting.model, setting.classes).to(ranks.device, memory_format=torch.channels_last)
    weights, statistics = [one.detach() for one in model.parameters()], list(model.buffers())
    gradients, kept = [torch.zeros_like(one) for one in weights], [one.clone() for one in statistics]
    logits = torch.zeros(setting.batch, setting.classes, device=ranks.device)
    labels = torch.zeros(setting.batch, dtype=torch.int64, device=ranks.device)
    average = [*weights, *(one for one in statistics if one.is_floating_point())]
    ema, phases = Ema(0.999, average), Phases(ranks)
    calls: dict[str, Callable[[], object]] = {
        "batch-norm statistics kept, for the case that the step is skipped": lambda: torch._foreach_copy_(
            kept, statistics
        ),
        "gradient checked for what is not finite": lambda: bool(
            nn.utils.get_total_norm(gradients).isfinite()
        ),
        "right answers counted": lambda: (logits.argmax(dim=1) == labels).sum(),
        "random numbers seeded": lambda: seed_step(config.seed, 1, ranks),
        "phases noted": lambda: _noted(phases),
        "learning rate": lambda: learning_rate(config.optim, 1, 9, 1.0, config.train.batch),
        "ranks ask each other whether to stop": lambda: ranks.any(False),
        "a row of metrics": _row(config, ranks),
        "moving average of the weights (train.ema)": lambda: ema.follow(average, 10_000),
    }
    return {name: _seconds(call, ranks.device) for name, call in calls.items()}


def _noted(phases: Phases) -> None:
    for phase in ("forward", "backward", "communication", "optimizer"):
        phases.enter(phase)
    phases.leave()
    phases.take()


def _row(config: TrainConfig, ranks: Ranks) -> Callable[[], None]:
    """As the loop writes one, with its exchanges between ranks."""
    meter = Meter(config, config.train.batch, ranks, 0, Phases(ranks), 0)
    file = MetricsFile(config.folder / "parts.jsonl", 0)

    def write() -> None:
        loss, correct = ranks.sum(torch.zeros(2, dtype=torch.float64)).tolist()
        row = {"time": time.time(), "step": 1, "epoch": 1.0, "split": "train", "loss": loss, "top1": correct}
        file.write(row | meter.row(1) | {"skipped": 0, "lr": 0.1, "samples": 1})

    return write


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    call()
    watch = Watch(device)
    for _ in range(CALLS):
        with watch:
            call()
    return median(watch.told()["steps"])
