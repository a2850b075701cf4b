"""What both engines share: a step's course, the average of the weights, and what a checkpoint holds.

Everything outside speaks of ``model`` (the bare network, torchvision's parameter names) and ``step``;
wrapping, compiling, scaling, sharding and accumulating stay in here.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pipeline.config import TrainConfig, UserError
from pipeline.data.batches import Batch
from pipeline.train.engine.ema import Ema
from pipeline.train.engine.precision import autocast, precision_dtype
from pipeline.train.loss import cross_entropy, right
from pipeline.train.phases import Phases
from pipeline.train.ranks import Ranks

Look = Callable[[dict[str, Tensor]], None]
"""Given the step's gradients by parameter name: summed over ranks and micro-batches, before the update."""


@dataclass(frozen=True)
class Stepped:
    """What one step measured on this rank; tensors, so that nobody waits for the device."""

    loss: Tensor  # () mean over this rank's pictures
    correct: Tensor  # () this rank's pictures whose top answer is right
    applied: bool
    """False on all ranks when a gradient was not finite: weights, optimizer and statistics stayed."""


class Engine(ABC):
    """Data-parallel training of a model.

    :param model: on the device, in its memory format; it is trained in place.
    :raises UserError: the config asks for what torch cannot do on this device.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, ranks: Ranks):
        if config.train.sync_batchnorm:
            if ranks.device.type == "cpu":
                raise UserError("train.sync_batchnorm: true works on GPUs alone; write false")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model, self.config, self.ranks = model, config, ranks
        self.dtype = precision_dtype(config.train.precision, ranks.device)
        self.phases = Phases(ranks)
        self.steps = 0
        """Done since the start of the run; the EMA's decay depends on it."""
        self.ema: Ema | None = None
        self._copy: nn.Module | None = None  # of the network, where another one's weights are evaluated

    # --- what an engine does ------------------------------------------------------------------------------

    @abstractmethod
    def _forward(self, images: Tensor) -> Tensor:
        """Logits (b, classes) of the wrapped model."""

    @abstractmethod
    def _backward(self, loss: Tensor) -> None:
        """Adds a micro-batch's gradients; after the last one they are the mean over ranks."""

    @abstractmethod
    def _micro_batch(self, last: bool) -> AbstractContextManager:
        """Around forward and backward of one micro-batch; ranks exchange gradients in the ``last`` alone."""

    @abstractmethod
    def _gradients(self) -> dict[str, Tensor]:
        """The step's gradients by parameter name, whole, unscaled; on every rank."""

    @property
    def loss_scale(self) -> float:
        """By which the next backward passes' gradients are multiplied: above 1 in fp16 alone."""
        return 1.0

    @abstractmethod
    def _update(self, lr: float) -> bool:
        """Clips and applies the gradients, and forgets them; False if they are not finite on any rank."""

    @abstractmethod
    def _forget(self) -> None:
        """Drops gradients without applying them."""

    @abstractmethod
    def _local(self) -> list[Tensor]:
        """This rank's part of the trained weights, changed in place by ``_update``."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """The model's whole state_dict on the device; all ranks must call it."""

    @abstractmethod
    def _load(self, weights: dict[str, Tensor]) -> None:
        """Puts a whole state_dict into the model."""

    @abstractmethod
    def _optimizer_state(self) -> dict:
        """By parameter name, whole: the same whichever engine and number of ranks; all ranks must call it."""

    @abstractmethod
    def _load_optimizer(self, state: dict) -> None: ...

    # --- what all engines do ------------------------------------------------------------------------------

    def prime(self, shape: tuple[int, int, int, int]) -> None:
        """Runs one forward and backward pass that leaves no trace in weights or statistics.

        DDP rebuilds its gradient buckets in the order in which gradients arrive in the first pass, and a
        reduction over three or more ranks rounds differently in other buckets. Primed, the first step of
        a continued run uses the buckets that it would have used undisturbed. It also compiles.
        """
        channels_last = self.config.train.channels_last
        memory = torch.channels_last if channels_last else torch.contiguous_format
        images = torch.zeros(shape, dtype=self.dtype, device=self.ranks.device).contiguous(
            memory_format=memory
        )
        before = [buffer.clone() for buffer in self._buffers]
        self.model.train()
        self.phases.enter("first pass")
        with self._micro_batch(last=True):
            with autocast(self.dtype, self.ranks.device):
                loss = self._forward(images).float().sum()
            self._backward(loss)
        self._forget()
        _copy_all(self._buffers, before)
        self.phases.leave()
        self._find_last_gradient()
        if self.config.train.ema is not None and self.ema is None:
            self.ema = Ema(self.config.train.ema, self._averaged())

    def step(self, batches: Sequence[Batch], lr: float, look: Look | None = None) -> Stepped:
        """One optimizer step over this rank's ``accumulate`` micro-batches of equal size."""
        assert len(batches) == self.config.train.accumulate
        if not self.model.training:  # to ask is a hundred times quicker than to tell every module
            self.model.train()
        _copy_all(self._before, self._buffers)
        losses, correct = [], []
        for number, batch in enumerate(batches):
            with self._micro_batch(last=number == len(batches) - 1):
                loss, hits = self._micro_step(batch, len(batches))
            losses.append(loss)
            correct.append(hits)
        self.phases.enter("optimizer")
        if look is not None:
            look(self._gradients())
        applied = self._update(lr)
        self.steps += 1
        if not applied:
            _copy_all(self._buffers, self._before)
        elif self.ema is not None:
            self.ema.follow(self._averaged(), self.steps)
        self.phases.leave()
        return Stepped(torch.stack(losses).mean(), torch.stack(correct).sum(), applied)

    def _micro_step(self, batch: Batch, count: int) -> tuple[Tensor, Tensor]:
        """One of ``count`` micro-batches, forward and backward: its mean loss and right answers, () each."""
        self.phases.enter("forward")
        with autocast(self.dtype, self.ranks.device):
            logits = self._forward(batch.images)  # (b, classes)
        logits = logits.float()
        loss = cross_entropy(logits, batch.labels, batch.mix, self.config.train.label_smoothing)
        self.phases.enter("backward")
        self._backward(loss / count)
        return loss.detach(), right(logits.detach(), batch.labels).sum()

    def network(self, *, ema: bool = False) -> nn.Module:
        """The bare network to evaluate, the same on every rank; all ranks must call it.

        Batch-norm statistics become the first rank's, which a checkpoint holds.
        """
        self.ranks.same(self._buffers)
        if not ema:
            return self._bare()
        with self.ema.inside(self._averaged()):
            self.ranks.same(self._buffers)  # every rank averages its own
            return self._loaded(self.weights())

    def state(self) -> dict:
        """A copy of all that the next step depends on; all ranks must call it, the first one keeps it."""
        self.ranks.same(self._buffers)
        state = {"model": self._kept(self.weights()), "optimizer": self._kept(self._optimizer_state())}
        if self.ema is not None:
            with self.ema.inside(self._averaged()):
                state["ema"] = self._kept(self.weights())
        return state

    def restore(self, state: dict, step: int) -> None:
        """Goes on from a checkpoint, of either engine at any number of ranks."""
        self.steps = step
        if "ema" in state:
            self._load(state["ema"])
            self.ema = Ema(self.config.train.ema, self._averaged())
        self._load(state["model"])
        self._load_optimizer(state["optimizer"])

    def _bare(self) -> nn.Module:
        """The network for evaluation; an engine that shards it gives a whole copy."""
        return self.model

    def _loaded(self, weights: dict[str, Tensor]) -> nn.Module:
        if self._copy is None:
            self._copy = copy.deepcopy(self.model)
        self._copy.load_state_dict(weights)
        return self._copy

    def _kept(self, tree: dict) -> dict:
        """A copy in the host's memory, on the first rank; the next step may change the original."""
        if not self.ranks.first:
            return {}
        return {
            key: self._kept(value) if isinstance(value, dict) else _host(value) for key, value in tree.items()
        }

    @cached_property
    def _buffers(self) -> list[Tensor]:
        return list(self.model.buffers())

    @cached_property
    def _before(self) -> list[Tensor]:
        """Room for the statistics as they were before a step."""
        return [torch.empty_like(buffer) for buffer in self._buffers]

    def _averaged(self) -> list[Tensor]:
        """Weights and running statistics; not the counters of batches beside these."""
        return [*self._local(), *(buffer for buffer in self._buffers if buffer.is_floating_point())]

    def _find_last_gradient(self) -> None:
        """From the moment when the first layer has its gradient, what is left of backward is waiting."""
        first = next(iter(self.model.parameters()))
        first.register_post_accumulate_grad_hook(lambda _: self.phases.enter("communication"))


def clip(parameters: Iterable[nn.Parameter], largest: float | None) -> bool:
    """Clips whole gradients to a norm of ``largest``; False, and untouched, if they are not finite."""
    parameters = list(parameters)
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters])
    # Averaged over the ranks, one rank's NaN is everybody's: all decide the same without asking.
    finite = bool(norm.isfinite())
    if finite and largest is not None:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return finite


def _host(value):
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


@torch.no_grad()
def _copy_all(to: list[Tensor], source: list[Tensor]) -> None:
    if to:
        torch._foreach_copy_(to, source)
