"""From rows of an index to batches on the device: the only loader, DALI, on a CPU or a GPU.

Which rows come is computed on the host (``order``), how each is cut and changed is computed on the host
too (``geometry``, ``policy``, ``erase``), files are read ahead on threads (``feed``); DALI then decodes and
does what it is told (``stream``, ``graph``). So the loader holds no state worth saving: a new one started at
step s yields what the old one would have yielded.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from pipeline.config import Augment, Loading, Pictures
from pipeline.data import erase, geometry, mix, policy
from pipeline.data.batches import Batch, Rows
from pipeline.data.feed import Fed
from pipeline.data.graph import Cut
from pipeline.data.index import Split
from pipeline.data.receipt import receipt
from pipeline.data.stream import Stream

_PLAIN = Augment()


@dataclass(frozen=True)
class Loader:
    """Where batches come from and in which form they go to a rank's model.

    :ivar dtype: of the pictures: float32, float16 or bfloat16.
    """

    split: Split
    pictures: Pictures
    loading: Loading
    device: torch.device
    channels_last: bool
    dtype: torch.dtype = torch.float32

    def training(self, rows: Iterator[Rows], batch: int, seed: int) -> Iterator[Batch]:
        """Batches of randomly cut, flipped and changed pictures, ``batch`` each."""
        augment = self.pictures.augment

        def inputs(rows: np.ndarray, plan: Rows) -> dict[str, np.ndarray]:
            shape, keys = self._shape(rows), (seed, rows, plan.epochs)
            found = cut.inputs(geometry.for_training(self.pictures, *keys, *shape, plan.side))
            found |= policy.inputs(augment, *keys)
            return found | erase.inputs(augment, plan.side or self.pictures.size, *keys)

        cut = Cut.for_training(self.pictures, self.split.decoded)
        for fed, images in Stream(self, inputs, cut, augment, batch, seed).run(rows):
            ready = self._batch(fed, images, fed.plan.weight)
            number = receipt(fed.plan.first, fed.rows, fed.plan.epochs, fed.arrays[1:])
            ready = replace(ready, receipt=number)
            if augment.in_pairs:
                keys = (fed.plan.rows, fed.plan.epochs, seed)
                images, mixed = mix.mix(ready.images, ready.labels, *keys, augment)
                ready = replace(ready, images=images, mix=mixed)
            yield ready

    def evaluation(self, rows: Iterator[Rows], batch: int) -> Iterator[Batch]:
        """Batches of centre crops, ``batch`` each; one that cannot be shown weighs nothing."""
        cut = Cut.for_evaluation(self.pictures, self.split.decoded)

        def inputs(rows: np.ndarray, plan: Rows) -> dict[str, np.ndarray]:
            return cut.inputs(geometry.for_evaluation(self.pictures, *self._shape(rows)))

        for fed, images in Stream(self, inputs, cut, _PLAIN, batch, seed=0).run(rows):
            yield self._batch(fed, images, fed.weight)

    def _shape(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.split.heights[rows], self.split.widths[rows]

    def _batch(self, fed: Fed, images: torch.Tensor, weight: np.ndarray) -> Batch:
        labels = self.split.labels[fed.rows]
        labels = torch.from_numpy(labels if self.split.multilabel else labels.astype(np.int64))
        to = {"device": self.device, "non_blocking": True}
        weight = torch.from_numpy(weight)
        return Batch(images, labels.to(**to), weight.to(**to), fed.rows, faults=tuple(fed.faults))
