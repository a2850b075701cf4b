"""Who runs between our loop's steps: the bare step, and the steps of torchvision's and timm's scripts.

Each is told in ``GUESTS`` by name. All train the network that our loop trains; a rival has its library's own
network where there is one of the same name and size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.bench.step import rivals
from pipeline.bench.step.relay import Step
from pipeline.bench.step.setting import Setting
from pipeline.data.batches import Batch
from pipeline.models import build
from pipeline.train.engine import autocast


@dataclass(frozen=True)
class Kind:
    """:ivar title: in the table.
    :ivar make: the step, of the setting, the device and the batch.
    """

    title: str
    make: Callable[[Setting, torch.device, Batch], Step]


def bare(setting: Setting, device: torch.device, batch: Batch, *, ddp: bool = False) -> Step:
    """Forward, backward, torch's fused SGD, and nothing else; compiled where our loop is.

    :param ddp: wrapped in DistributedDataParallel, as our engine does it.
    """
    torch.manual_seed(0)
    model = build(setting.model, setting.classes).to(device, memory_format=torch.channels_last)
    words = {"lr": setting.lr, "momentum": setting.momentum, "weight_decay": setting.weight_decay}
    optimizer = torch.optim.SGD(model.parameters(), nesterov=True, fused=True, **words)
    run: nn.Module = torch.compile(model) if setting.changes.get("train.compile") else model
    if ddp:
        ids = [device.index] if device.type == "cuda" else None
        run = DistributedDataParallel(run, device_ids=ids, gradient_as_bucket_view=True)
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


def wrapped(setting: Setting, device: torch.device, batch: Batch) -> Step:
    """The bare step under DDP."""
    return bare(setting, device, batch, ddp=True)


GUESTS = {
    "bare": Kind("forward, backward, optimizer, and nothing else", bare),
    "again": Kind("the same a second time", bare),
    "ddp": Kind("the same under DDP", wrapped),
    "torchvision": Kind("torchvision, references/classification/train.py", rivals.torchvision),
    "timm": Kind("timm, train.py", rivals.timm),
    "timm-tuned": Kind("timm, train.py --channels-last --torchcompile", rivals.timm_tuned),
}
