"""From a source to an index: every picture is measured, checked and packed once, never in training."""

from .how import How
from .write import Summary, write_index

__all__ = ["How", "Summary", "write_index"]
