"""A transfer: its tasks and how each mode is trained."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.pictures import Pictures
from pipeline.config.section import Positive, Section
from pipeline.config.training import Loading, Monitor, Optimizer, Train


class Recipe(Section):
    """How one mode of transfer trains: the part of a TrainConfig that differs from mode to mode."""

    optim: Optimizer
    train: Train


class Dataset(Section):
    """One downstream task and its protocol."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    index: str
    train: str = "train"
    test: str = "test"
    per_class: Positive | None = None
    """Training pictures of each class, drawn by seed without replacement; none = all."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the training pictures on which the regularisation is chosen; refitted on all of them."""
    choose_by: Literal["top1", "loss"] = "top1"
    """What is compared on validation: top-1 as in the lineage, or cross-entropy where pictures are few."""
    metric: Literal["top1"] = "top1"
    seeds: Positive = 3
    """Repetitions, each with other training pictures and another random start."""


class TransferConfig(Section):
    """Frozen, finetuned and from scratch: ``torchrun ... -m launch.transfer CONFIG checkpoint=PATH``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$")]
    runs: str = "runs"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    checkpoint: str
    """A checkpoint of launch.train, or a run's folder: its latest."""
    ema: bool = False
    """Evaluate the checkpoint's moving average (``train.ema``) instead of its raw weights."""
    datasets: list[Dataset] = Field(min_length=1)
    modes: list[Literal["frozen", "finetuned", "scratch"]] = Field(["frozen", "finetuned", "scratch"])
    pictures: Pictures = Pictures()
    loading: Loading = Loading()
    batch: Positive = 256
    """Pictures per forward pass of a rank when features are computed or a test set is evaluated."""
    finetuned: Recipe
    scratch: Recipe
    monitor: Monitor = Monitor()

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name
