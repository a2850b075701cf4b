"""The nets: one pattern (`pattern`), its names (`zoo`), and what a net costs (`cost`)."""

from pipeline.models.cost import cost
from pipeline.models.pattern import ConvNet, Pattern
from pipeline.models.zoo import build, names

__all__ = ["ConvNet", "Pattern", "build", "cost", "names"]
