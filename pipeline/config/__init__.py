"""Configs: their schema, and how they are read, changed, explained and kept."""

from pipeline.config.errors import UserError
from pipeline.config.load import dump, keys, load, parse
from pipeline.config.schema import (
    Augment,
    Checkpoint,
    Data,
    Dataset,
    Loading,
    Model,
    Monitor,
    Optimizer,
    Pictures,
    Progressive,
    Recipe,
    Section,
    Train,
    TrainConfig,
    TransferConfig,
)

__all__ = [
    "Augment",
    "Checkpoint",
    "Data",
    "Dataset",
    "Loading",
    "Model",
    "Monitor",
    "Optimizer",
    "Pictures",
    "Progressive",
    "Recipe",
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
