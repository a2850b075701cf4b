"""Every rank holds the whole model and optimizer; torch's DDP averages the gradients."""

from contextlib import AbstractContextManager, nullcontext
from inspect import signature

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.config import TrainConfig
from pipeline.train.engine.base import Engine, clip
from pipeline.train.optim import build_optimizer, load_named_state, named_state, set_rate
from pipeline.train.ranks import Ranks


class DDPEngine(Engine):
    def __init__(self, model: nn.Module, config: TrainConfig, ranks: Ranks):
        super().__init__(model, config, ranks)
        self.optimizer = build_optimizer(self.model, config.optim)
        # Only fp16's narrow exponent needs its loss scaled; disabled, the scaler hands everything through.
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.dtype == torch.float16)
        compiled = torch.compile(self.model) if config.train.compile else self.model
        self.wrapped = _wrapped(compiled, ranks) if ranks.world > 1 else compiled
        self.parameters = dict(self.model.named_parameters())

    def _forward(self, images: Tensor) -> Tensor:
        return self.wrapped(images)

    def _micro_batch(self, last: bool) -> AbstractContextManager:
        return nullcontext() if last or self.ranks.world == 1 else self.wrapped.no_sync()

    def _backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    @property
    def loss_scale(self) -> float:
        return self.scaler.get_scale()

    def _gradients(self) -> dict[str, Tensor]:
        scale = self.loss_scale
        return {name: parameter.grad / scale for name, parameter in self.parameters.items()}

    def _update(self, lr: float) -> bool:
        set_rate(self.optimizer, lr)
        self.scaler.unscale_(self.optimizer)
        applied = clip(self.parameters.values(), self.config.optim.clip)
        if applied:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self._forget()
        return applied

    def _forget(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def _local(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self.parameters.values()]

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def _load(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict(weights)

    def _optimizer_state(self) -> dict:
        return {"named": named_state(self.optimizer, self.parameters), "scaler": self.scaler.state_dict()}

    def _load_optimizer(self, state: dict) -> None:
        load_named_state(self.optimizer, self.parameters, state["named"])
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])


def _wrapped(model: nn.Module, ranks: Ranks) -> DistributedDataParallel:
    """Batch-norm statistics stay each rank's own while it trains: the first rank's are what is evaluated and
    saved, and these don't depend on the others'. Sent in every step they took longer than the optimizer."""
    ids = [ranks.device.index] if ranks.device.type == "cuda" else None
    known = signature(DistributedDataParallel).parameters
    sending = (
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    )  # torch < 2.15
    return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True, **{sending: False})
