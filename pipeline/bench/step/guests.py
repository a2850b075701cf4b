"""The other contestants: the bare step, and the steps of torchvision's and timm's scripts.

All train the network that our loop trains; a rival has its library's own network where there is one of the
same name and size.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.bench.step import rivals
from pipeline.bench.step.baton import Baton
from pipeline.bench.step.ours import steady_batch
from pipeline.bench.step.setting import WARM, Setting
from pipeline.bench.step.watch import Watch
from pipeline.data.batches import Batch
from pipeline.models import build
from pipeline.train.engine import autocast
from pipeline.train.ranks import join


def bare(
    setting: Setting, device: torch.device, batch: Batch, *, mode: str | None = None, fused: bool = True
) -> Callable[[], None]:
    """Forward, backward, torch's fused SGD, and nothing else; compiled where our loop is.

    :param mode: of torch.compile. :param fused: else torch's SGD as it is without the word.
    """
    torch.manual_seed(0)
    model = build(setting.model, setting.classes).to(device, memory_format=torch.channels_last)
    words = {"lr": setting.lr, "momentum": setting.momentum, "weight_decay": setting.weight_decay}
    optimizer = torch.optim.SGD(model.parameters(), nesterov=True, fused=fused or None, **words)
    run: nn.Module = torch.compile(model, mode=mode) if setting.changes.get("train.compile") else model
    dtype = setting.dtype(device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step() -> None:
        with autocast(dtype, device):
            logits = run(batch.images)  # (b, classes)
        scaler.scale(F.cross_entropy(logits.float(), batch.labels)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


OWN = {"bare": bare, "again": bare}
"""In a process as ``launch.train`` has it: its threads, its memory."""
RIVALS = {"torchvision": rivals.torchvision, "timm": rivals.timm, "timm-tuned": rivals.timm_tuned}
"""In a process as their scripts have it."""


def asked(started: float, setting: dict[str, Any], name: str) -> dict[str, Any]:
    """Takes turns with the other contestants."""
    told = Setting(**setting)
    torch.backends.cudnn.benchmark = True  # as in our loop and in both scripts
    if name in OWN:
        with join(told.device) as ranks:
            return _play(told, OWN[name], ranks.device)
    return _play(told, RIVALS[name], torch.device(told.device))


def _play(setting: Setting, make: Callable[..., Callable[[], None]], device: torch.device) -> dict[str, Any]:
    step = make(setting, device, steady_batch(setting, device))
    for _ in range(WARM):
        step()
    baton = Baton()
    for _ in baton:
        watch = Watch(device)
        step()
        for _ in range(setting.steps):
            with watch:
                step()
        baton.tell(watch.told())
    return {}
