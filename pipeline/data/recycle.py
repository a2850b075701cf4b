"""Memory of batches that were thrown away, for the next ones: the system's fresh pages come slowly."""

import weakref

import numpy as np
import torch

SPARE = 4
"""Batches' worth of memory that waits for use at most."""


class Recycler:
    """Gives out float32 tensors; takes their memory back when nothing holds it any more."""

    def __init__(self):
        self._spare: list[np.ndarray] = []

    def take(self, *shape: int) -> torch.Tensor:
        """A tensor of this shape, whatever it holds."""
        count = int(np.prod(shape))
        memory = None
        while self._spare and memory is None:
            memory = self._spare.pop()
            memory = memory if memory.size == count else None
        if memory is None:
            memory = np.empty(count, np.float32)
        # The tensor keeps this view alive, and so does whatever shares the tensor's memory; only when the
        # last of them is gone does the view go.
        view = memory[:]
        weakref.finalize(view, self._back, memory).atexit = False
        return torch.from_numpy(view).view(shape)

    def _back(self, memory: np.ndarray) -> None:
        if len(self._spare) < SPARE:
            self._spare.append(memory)
