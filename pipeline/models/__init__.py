"""The nets: one pattern (`pattern`), its modules (`net`), its names (`zoo`), what a net costs (`cost`)."""

from pipeline.models.cost import cost
from pipeline.models.net import ConvNet
from pipeline.models.pattern import Pattern
from pipeline.models.zoo import build, names

__all__ = ["ConvNet", "Pattern", "build", "cost", "names"]
