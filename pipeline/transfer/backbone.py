"""The network that is transferred: from a checkpoint, frozen for features."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pipeline.config import Model, TrainConfig, parse
from pipeline.files import sha256
from pipeline.models import build
from pipeline.train import checkpoint
from pipeline.train.start import load_weights, switches, weights_of


class Frozen(nn.Module):
    """Features before the classifier. Nothing in it moves: neither weights nor batch-norm statistics.

    ``requires_grad=False`` alone does not stop running statistics, and a parent's ``train()`` would switch
    them on again; here ``train()`` has no effect.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "Frozen":
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) -> (N, D)."""
        return self.model.embed(x)


@dataclass(frozen=True)
class Backbone:
    """A checkpoint's network.

    :ivar path: of the checkpoint file.
    :ivar digest: sha256 of that file, or for its moving average of that and a word more.
    """

    path: Path
    digest: str
    about: Model
    weights: dict
    classes: int

    @classmethod
    def read(cls, path: str, *, ema: bool = False, tell: bool = True) -> "Backbone":
        """:param ema: the moving average of the weights. :param tell: damaged checkpoints are told.
        :raises UserError: no such checkpoint, or a broken one.
        """
        file, state = checkpoint.find(path, tell=tell)
        about = parse(TrainConfig, state["config"], str(file)).model.model_copy(update={"ema": ema})
        digest = sha256(file)
        if ema:
            digest = hashlib.sha256(f"{digest} ema".encode()).hexdigest()
        return cls(file, digest, about, weights_of(state, file, ema=ema), len(state["classes"]))

    def frozen(self, device: torch.device) -> Frozen:
        model = build(self.about.name, self.classes, **switches(self.about))
        load_weights(model, self.weights, self.about, keep_head=True)
        return Frozen(model.to(device, memory_format=torch.channels_last))
