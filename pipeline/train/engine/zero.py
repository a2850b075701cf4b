"""DeepSpeed: the optimizer's state, gradients and weights spread over the ranks (ZeRO stages 0 to 3)."""

import copy
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.config import TrainConfig, UserError
from pipeline.train.engine.base import Engine, clip
from pipeline.train.engine.partition import Chained, Sliced, Whole
from pipeline.train.engine.precision import LossScale
from pipeline.train.optim import build_optimizer, set_rate
from pipeline.train.ranks import Ranks

PARTITIONS = {0: Whole, 1: Chained, 2: Chained, 3: Sliced}


class ZeroEngine(Engine):
    """:raises UserError: the config asks for torch.compile at stage 3."""

    def __init__(self, model: nn.Module, config: TrainConfig, ranks: Ranks):
        super().__init__(model, config, ranks)
        self.stage = config.deepspeed.stage
        if config.train.compile and self.stage == 3:
            raise UserError(
                "train.compile: true does not go with deepspeed.stage: 3, whose hooks in every layer cannot "
                "be compiled; write train.compile: false, or a stage from 0 to 2"
            )
        if self.stage == 3 or config.train.ema is not None:
            self._copy = copy.deepcopy(self.model)  # before DeepSpeed ties it to itself
        # DeepSpeed 0.19.8 cannot send channels_last weights, and makes them contiguous at stages 1 to 3 for
        # good. Convolutions then still follow the pictures' format, and turn their weights as they go.
        self.model.to(memory_format=torch.contiguous_format)
        self.engine, *_ = _deepspeed(ranks).initialize(
            model=torch.compile(self.model) if config.train.compile else self.model,
            optimizer=build_optimizer(self.model, config.optim),
            config=_settings(config, ranks, self.dtype),
        )
        if self.stage == 0 and config.train.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.scale = LossScale() if self.dtype == torch.float16 else None
        # With DeepSpeed's own scalers for autocast every rank decides alone, clips by the scaled norm, and
        # never lowers the scale after an overflow that the norm shows (0.19.8).
        self.engine.torch_autocast_z0_gradscaler = None
        self.engine.optimizer.torch_autocast_gradscaler = None
        self.partition = PARTITIONS[self.stage](self.model, self.engine.optimizer, ranks)

    def _forward(self, images: Tensor) -> Tensor:
        return self.engine(images)

    @contextmanager
    def _micro_batch(self, last: bool) -> Iterator[None]:
        # Stages 2 and 3 reduce after every micro-batch, so that a rank never keeps whole gradients.
        self.engine.set_gradient_accumulation_boundary(last)
        yield

    def _backward(self, loss: Tensor) -> None:
        if self.scale is not None and self.stage == 0:
            loss = loss * self.scale.value
        elif self.scale is not None:
            self.engine.optimizer.override_loss_scale(self.scale.value)
        self.engine.backward(loss, scale_wrt_gas=False)

    @property
    def loss_scale(self) -> float:
        return 1.0 if self.scale is None else self.scale.value

    def _gradients(self) -> dict[str, Tensor]:
        scale = self.loss_scale
        return {name: gradient / scale for name, gradient in self.partition.gradients().items()}

    def _update(self, lr: float) -> bool:
        set_rate(self.engine.optimizer, lr)
        if self.stage == 0 and not self._clipped():
            self._forget()
            applied = False
        else:
            # From stage 1 on it finds the norm over all ranks, clips, and skips what is not finite.
            self.engine.step()
            applied = self.engine.was_step_applied()
        if self.scale is not None:
            self.scale.update(overflow=not applied)
        return applied

    def _clipped(self) -> bool:
        """Stage 0's gradients, unscaled and clipped as DDP's are; False if they are not finite."""
        parameters = list(self.model.parameters())
        if self.scale is not None:
            torch._foreach_div_([parameter.grad for parameter in parameters], self.scale.value)
        return clip(parameters, self.config.optim.clip)

    def _forget(self) -> None:
        # From stage 1 on it also forgets that a micro-batch was there: the next one's gradients replace
        # this one's, and are not added to them.
        (self.engine if self.stage == 0 else self.engine.optimizer).zero_grad()

    def _local(self) -> list[Tensor]:
        return self.partition.local()

    def weights(self) -> dict[str, Tensor]:
        return self.partition.weights()

    def _load(self, weights: dict[str, Tensor]) -> None:
        self.partition.load(weights)

    def _optimizer_state(self) -> dict:
        scaler = {} if self.scale is None else self.scale.state_dict()
        return {"named": self.partition.state(), "scaler": scaler}

    def _load_optimizer(self, state: dict) -> None:
        self.partition.load_state(state["named"])
        if state["scaler"] and self.scale is not None:
            self.scale.load_state_dict(state["scaler"])

    def _bare(self) -> nn.Module:
        return self._loaded(self.weights()) if self.stage == 3 else self.model


def _deepspeed(ranks: Ranks):
    """The package, on this rank's device. It joins the process group that is there already."""
    if ranks.device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
        # Else it starts numactl in every step of stage 3, to count devices.
        os.environ.setdefault("LOCAL_SIZE", os.environ.get("LOCAL_WORLD_SIZE", "1"))
    os.environ.setdefault("LOCAL_RANK", str(ranks.local_rank))  # a job of one process needs no torchrun
    import deepspeed

    # It would try compilers for all its C++ operators, and build one, of use to inference alone.
    deepspeed.ops.__compatible_ops__ = {}
    logging.getLogger("DeepSpeed").addFilter(_is_news)
    return deepspeed


def _is_news(record: logging.LogRecord) -> bool:
    """Not so: that DeepSpeed's authors have not tried ZeRO with SGD or LARS, where our tests do, and that a
    step is skipped, which the loop tells."""
    known = ("untested optimizer", "OVERFLOW! Skipping step")
    return not any(words in record.getMessage() for words in known)


def _settings(config: TrainConfig, ranks: Ranks, dtype: torch.dtype) -> dict:
    """DeepSpeed's own config."""
    zero, train = config.deepspeed, config.train
    bucket = zero.bucket + zero.bucket % 2  # it wants them even
    return {
        "train_micro_batch_size_per_gpu": train.batch // ranks.world // train.accumulate,
        "gradient_accumulation_steps": train.accumulate,
        "gradient_clipping": config.optim.clip if zero.stage > 0 and config.optim.clip else 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": zero.stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": bucket,
            "overlap_comm": zero.overlap,
            # It would replace torch.nn.functional.linear in the whole process.
            "memory_efficient_linear": False,
        },
        "torch_autocast": {
            "enabled": dtype != torch.float32,
            "dtype": str(dtype).removeprefix("torch."),
            # Of which gradients would be reduced in the narrow type: of none, as in DDP.
            "lower_precision_safe_modules": [],
        },
        "steps_per_print": None,
        "timers": {"throughput": {"enabled": False}},  # they wait for the GPU
    }
