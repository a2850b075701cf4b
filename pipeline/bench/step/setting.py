"""What a contestant's process is told, and the config that our loop gets of it."""

from dataclasses import dataclass, field
from typing import Any

import torch

from pipeline.config import TrainConfig, parse
from pipeline.train.engine import precision_dtype

WARM = 2
"""Steps of everybody before anything is measured; the first one compiles."""


@dataclass(frozen=True)
class Setting:
    """:ivar model, size, batch, classes: of the step; ``batch`` pictures on each rank.
    :ivar folder: of our loop's runs; it must hold no run of before.
    :ivar rounds: turns of everybody. :ivar steps: measured in a turn, after one that is not.
    :ivar lr, momentum, weight_decay: of everybody's SGD; Nesterov's, but torchvision's script has none.
    :ivar changes: of our loop's config, by dotted key.
    """

    model: str
    size: int
    batch: int
    folder: str
    rounds: int
    steps: int
    classes: int = 1000
    device: str = "cpu"
    precision: str = "fp32"
    lr: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 1e-4
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def planned(self) -> int:
        """Steps of our loop: the last one is not measured, for nobody waits behind it."""
        return WARM + self.rounds * (1 + self.steps) + 1

    def first(self, number: int) -> int:
        """Number of the first measured step of our loop in round ``number`` (0-based)."""
        return WARM + number * (1 + self.steps) + 2

    def config(self, world: int) -> TrainConfig:
        """Of a run whose epoch is one batch, so that ``epochs`` and ``checkpoint.every`` count steps."""
        tree: dict[str, Any] = {
            "name": "step",
            "runs": self.folder,
            "data": {"index": "none", "val": None, "pictures": {"size": self.size, "eval_resize": None}},
            "model": {"name": self.model},
            "optim": {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay},
            "train": {"batch": self.batch * world, "epochs": float(self.planned), "device": self.device},
            "checkpoint": {"every": 2.0 * self.planned},
            "monitor": {"wandb": False, "samples": 0},
        }
        tree["train"]["precision"] = self.precision
        tree["optim"]["schedule"] = "constant"
        for key, value in self.changes.items():
            section, name = key.split(".")
            tree[section][name] = value
        return parse(TrainConfig, tree, "launch.bench step")

    def dtype(self, device: torch.device) -> torch.dtype:
        return precision_dtype(self.precision, device)
