"""Configs: their schema, and how they are read, changed, explained and kept."""

from pipeline.config.errors import UserError
from pipeline.config.load import dump, keys, load, parse
from pipeline.config.pictures import Augment, Pictures, Progressive
from pipeline.config.protocol import Protocol, Resize
from pipeline.config.section import Section
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
from pipeline.config.transferring import Dataset, FrozenRecipe, Grid, Recipe, TransferConfig

__all__ = [
    "Augment",
    "Checkpoint",
    "Data",
    "Dataset",
    "DeepSpeed",
    "FrozenRecipe",
    "Grid",
    "Loading",
    "Model",
    "Monitor",
    "Optimizer",
    "Pictures",
    "Progressive",
    "Protocol",
    "Recipe",
    "Resize",
    "Section",
    "Train",
    "TrainConfig",
    "TransferConfig",
    "UserError",
    "dump",
    "keys",
    "load",
    "parse",
]
