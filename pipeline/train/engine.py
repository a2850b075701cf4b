"""The engine: one optimizer step over all ranks, in mixed precision. Behind it stands DDP.

Everything outside speaks of ``model`` (the bare network, torchvision's parameter names) and ``step``;
wrapping, compiling, scaling and accumulating stay in here.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.config import TrainConfig
from pipeline.data.batches import Batch
from pipeline.data.mix import cross_entropy
from pipeline.train.optim import build_optimizer
from pipeline.train.ranks import Ranks

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Stepped:
    """What one step measured on this rank; tensors, so that nobody waits for the device."""

    loss: torch.Tensor  # () mean over this rank's pictures
    correct: torch.Tensor  # () this rank's pictures whose top answer is right


def precision_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The autocast dtype of a config's ``train.precision`` on a device."""
    if precision == "auto":
        if device.type == "cpu":
            return torch.float32
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return _DTYPES[precision]


def autocast(dtype: torch.dtype, device: torch.device):
    """The forward pass's precision; parameters stay fp32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


class DDPEngine:
    """Data-parallel training of a model by torch's DDP.

    :param model: on the device, in its memory format; its parameters are trained in place.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, ranks: Ranks):
        self.model, self.ranks = model, ranks
        self.accumulate, self.channels_last = config.train.accumulate, config.train.channels_last
        self.smoothing, self.clip = config.train.label_smoothing, config.optim.clip
        self.dtype = precision_dtype(config.train.precision, ranks.device)
        scaled = self.dtype == torch.float16
        self.optimizer = build_optimizer(model, config.optim, scaled=scaled)
        # Only fp16's narrow exponent needs its loss scaled; disabled, the scaler hands everything through.
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=scaled)
        compiled = torch.compile(model) if config.train.compile else model
        ids = [ranks.device.index] if ranks.device.type == "cuda" else None
        self.wrapped = DistributedDataParallel(compiled, device_ids=ids, gradient_as_bucket_view=True)

    def prime(self, shape: tuple[int, int, int, int]) -> None:
        """Runs one forward and backward pass that leaves no trace in weights or statistics.

        DDP rebuilds its gradient buckets in the order in which gradients arrive in the first pass, and a
        reduction over three or more ranks rounds differently in other buckets. Primed, the first step of
        a continued run uses the buckets that it would have used undisturbed. It also compiles.
        """
        memory = torch.channels_last if self.channels_last else torch.contiguous_format
        images = torch.zeros(shape, dtype=self.dtype, device=self.ranks.device).contiguous(
            memory_format=memory
        )
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        self.model.train()
        with autocast(self.dtype, self.ranks.device):
            loss = self.wrapped(images).float().sum()
        loss.backward()
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, before in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(before)

    def step(self, batches: Sequence[Batch], lr: float) -> Stepped:
        """One optimizer step over this rank's ``accumulate`` micro-batches of equal size."""
        assert len(batches) == self.accumulate
        self.model.train()
        losses, correct = [], []
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last else self.wrapped.no_sync():
                with autocast(self.dtype, self.ranks.device):
                    logits = self.wrapped(batch.images)  # (b, classes)
                logits = logits.float()
                loss = cross_entropy(logits, batch.labels, batch.mix, self.smoothing)
                self.scaler.scale(loss / self.accumulate).backward()
            losses.append(loss.detach())
            correct.append((logits.detach().argmax(dim=1) == batch.labels).sum())
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return Stepped(torch.stack(losses).mean(), torch.stack(correct).sum())

    def agree(self) -> None:
        """Gives all ranks the same batch-norm statistics: the first rank's, which a checkpoint holds."""
        self.ranks.same(self.model.buffers())

    def state(self) -> dict:
        """Everything that the next step depends on, for a checkpoint."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
