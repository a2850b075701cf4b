"""Configs: their schema, and how they are read, changed, explained and kept."""

from pipeline.config.errors import UserError, one_line
from pipeline.config.load import changed, dump, keys, load, parse
from pipeline.config.pictures import Augment, Pictures, Progressive
from pipeline.config.protocol import Protocol, Resize
from pipeline.config.section import Section
from pipeline.config.studying import (
    GradientStudyConfig,
    Looks,
    PrecomputeConfig,
    StudyConfig,
    full_words,
)
from pipeline.config.training import (
    Checkpoint,
    Data,
    DeepSpeed,
    Loading,
    Model,
    Monitor,
    Optimizer,
    Train,
    TrainConfig,
)
from pipeline.config.transferring import Dataset, FrozenRecipe, Grid, Network, Recipe, TransferConfig

__all__ = [
    "Augment",
    "Checkpoint",
    "Data",
    "Dataset",
    "DeepSpeed",
    "FrozenRecipe",
    "GradientStudyConfig",
    "Grid",
    "Loading",
    "Looks",
    "Model",
    "Monitor",
    "Network",
    "Optimizer",
    "Pictures",
    "PrecomputeConfig",
    "Progressive",
    "Protocol",
    "Recipe",
    "Resize",
    "Section",
    "StudyConfig",
    "Train",
    "TrainConfig",
    "TransferConfig",
    "UserError",
    "changed",
    "dump",
    "full_words",
    "keys",
    "load",
    "one_line",
    "parse",
]
