"""What a user would run instead, written after their scripts; loading and printing are left out.

torchvision: references/classification/train.py and utils.py (github.com/pytorch/vision), as of 0.13
and later: ``train_one_epoch`` with its optimizer, ``accuracy`` and ``MetricLogger``.
timm: train.py (github.com/huggingface/pytorch-image-models), as of timm 1.0: ``train_one_epoch`` with
``timm.task``, ``create_optimizer_v2`` and ``AverageMeter``, all from the installed package.

Both scripts ask for the loss in every step, which on a GPU waits for the queue.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.bench.step.setting import Setting
from pipeline.data.batches import Batch
from pipeline.models import build

PRINT_EVERY = 10
"""Steps between lines of torchvision's script (``--print-freq``)."""


def torchvision(setting: Setting, device: torch.device, batch: Batch) -> Callable[[], None]:
    """Contiguous memory, not compiled, SGD that is not fused: the script has no switches for these.

    :raises ValueError: a precision that the script does not have: ``--amp`` is fp16 on a GPU.
    """
    from torchvision import models

    own = getattr(models, setting.model, None)
    model = network(setting, own and partial(own, num_classes=setting.classes)).to(device)
    words = {"lr": setting.lr, "momentum": setting.momentum, "weight_decay": setting.weight_decay}
    optimizer = torch.optim.SGD(model.parameters(), **words)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.0)
    amp = setting.precision == "fp16" and device.type == "cuda"
    if setting.precision != "fp32" and not amp:
        raise ValueError(f"torchvision's script has no {setting.precision} on {device.type}")
    scaler = torch.amp.GradScaler("cuda") if amp else None
    meters = Meters()
    images, labels = batch.images.contiguous(), batch.labels
    model.train()

    def step() -> None:
        begun = time.time()
        image, target = images.to(device), labels.to(device)
        with torch.amp.autocast("cuda") if amp else nullcontext():
            output = model(image)
            loss = criterion(output, target)
        optimizer.zero_grad()
        if scaler is not None:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        else:
            loss.backward()
            optimizer.step()
        right1, right5 = accuracy(output, target, (1, 5))
        meters.update(1, loss=loss.item(), lr=optimizer.param_groups[0]["lr"])
        meters.update(len(image), acc1=right1.item(), acc5=right5.item())
        meters.update(1, images_per_s=len(image) / (time.time() - begun))
        meters.told()

    return step


def timm(setting: Setting, device: torch.device, batch: Batch, *, tuned: bool = False) -> Callable[[], None]:
    """As the script runs without further words: contiguous memory, not compiled.

    :param tuned: with ``--channels-last --torchcompile``.
    """
    from timm import create_model, list_models, utils
    from timm.optim import create_optimizer_v2
    from timm.task import ClassificationTask

    own = setting.model in list_models(setting.model)
    model = network(
        setting, partial(create_model, setting.model, num_classes=setting.classes) if own else None
    )
    model = model.to(device, memory_format=torch.channels_last if tuned else torch.contiguous_format)
    words = {"lr": setting.lr, "momentum": setting.momentum, "weight_decay": setting.weight_decay}
    optimizer = create_optimizer_v2(model, opt="sgd", **words)
    task = ClassificationTask(model, nn.CrossEntropyLoss(), device=device, verbose=False)
    if tuned:
        task.compile()
    dtype = setting.dtype(device)
    narrow = dtype != torch.float32
    autocast: Callable[[], AbstractContextManager] = (
        partial(torch.autocast, device_type=device.type, dtype=dtype) if narrow else nullcontext
    )
    scaler = utils.NativeScaler(device.type) if dtype == torch.float16 else None
    losses, seconds = utils.AverageMeter(), utils.AverageMeter()
    images = batch.images.contiguous()
    task.train()

    def step() -> None:
        begun = time.time()
        image, target = images.to(device), batch.labels.to(device)
        if tuned:
            image = image.contiguous(memory_format=torch.channels_last)
        with autocast():
            loss = task(image, target)["loss"]
        if scaler is not None:
            scaler(loss, optimizer)
        else:
            loss.backward()
            optimizer.step()
        losses.update(loss.item(), len(image))
        optimizer.zero_grad()
        seconds.update(time.time() - begun)

    return step


def timm_tuned(setting: Setting, device: torch.device, batch: Batch) -> Callable[[], None]:
    return timm(setting, device, batch, tuned=True)


def network(setting: Setting, own: Callable[[], nn.Module] | None) -> nn.Module:
    """The library's own network, if it is ours under another roof; else ours."""
    torch.manual_seed(0)
    ours = build(setting.model, setting.classes)
    theirs = own and own()
    return theirs if theirs is not None and sizes(theirs) == sizes(ours) else ours


def sizes(model: nn.Module) -> list[torch.Size]:
    return [parameter.shape for parameter in model.parameters()]


def accuracy(output: Tensor, target: Tensor, at: tuple[int, ...]) -> Iterator[Tensor]:
    """Percentages of targets (b,) among the first answers of output (b, classes), () for each of ``at``."""
    with torch.no_grad():
        answers = output.topk(max(at), dim=1).indices.t()  # (k, b)
        right = answers.eq(target[None])
        for count in at:
            yield right[:count].flatten().sum(dtype=torch.float32) * (100.0 / len(target))


class Meters:
    """torchvision's ``MetricLogger``: of each quantity the last twenty values and the mean of all."""

    def __init__(self):
        self._last: dict[str, deque[float]] = {}
        self._sums: dict[str, tuple[float, int]] = {}
        self._steps = 0

    def update(self, count: int, **values: float) -> None:
        for name, value in values.items():
            total, number = self._sums.get(name, (0.0, 0))
            self._last.setdefault(name, deque(maxlen=20)).append(value)
            self._sums[name] = (total + value * count, number + count)

    def told(self) -> str | None:
        """Every ``PRINT_EVERY`` steps the line that the script prints."""
        self._steps += 1
        if self._steps % PRINT_EVERY != 1:
            return None
        medians = {name: torch.tensor(list(last)).median().item() for name, last in self._last.items()}
        means = {name: total / number for name, (total, number) in self._sums.items()}
        return "  ".join(f"{name}: {medians[name]:.4f} ({means[name]:.4f})" for name in medians)
