"""From rows of an index to batches on the device: the only loader, DALI, on a CPU or a GPU.

Which rows come is computed on the host (``order``), how each is cut is computed on the host too
(``geometry``); DALI only reads, decodes, scales and normalises (``graph``). So the loader holds no state
worth saving: a new one started at step s yields what the old one would have yielded.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from nvidia.dali import Pipeline
from nvidia.dali.plugin.pytorch import feed_ndarray

from pipeline.config import Loading, Pictures
from pipeline.data import geometry
from pipeline.data.geometry import Geometry
from pipeline.data.graph import Cut, graph
from pipeline.data.index import Split
from pipeline.data.order import Order


@dataclass(frozen=True)
class Rows:
    """What one batch holds: its rows of the split, their epochs, and which of them count."""

    rows: np.ndarray  # (b,) int64
    epochs: np.ndarray  # (b,) int64
    weight: np.ndarray  # (b,) float32; 0 for a row that only fills up the last batch of an evaluation


@dataclass(frozen=True)
class Batch:
    images: torch.Tensor  # (b, 3, S, S) float32, normalised, on the device
    labels: torch.Tensor  # (b,) int64, on the device
    weight: torch.Tensor  # (b,) float32, on the device
    rows: np.ndarray  # (b,) int64, on the host


def training_rows(
    order: Order, rank: int, world: int, accumulate: int, start: int, stop: int
) -> Iterator[Rows]:
    """The micro-batches of one rank for steps start..stop-1, ``accumulate`` a step.

    A rank's pieces lie side by side in the global batch, so that the ranks' batches one after the other
    are the global batch in order, whatever the number of ranks.
    """
    for step in range(start, stop):
        for micro in range(accumulate):
            rows, epochs = order.piece(step, rank * accumulate + micro, world * accumulate)
            yield Rows(rows, epochs, np.ones(len(rows), np.float32))


def evaluation_rows(n: int, batch: int, rank: int, world: int) -> Iterator[Rows]:
    """Every row of 0..n-1 once over all ranks; all ranks get equally many batches of equal size.

    The places beyond n are filled with row 0 at weight 0: ranks stay in step, and shapes never change.
    """
    for start in range(0, n, batch * world):
        rows = np.arange(start + rank * batch, start + (rank + 1) * batch)
        counts = rows < n
        yield Rows(np.where(counts, rows, 0), np.zeros(batch, np.int64), counts.astype(np.float32))


@dataclass(frozen=True)
class Loader:
    """Where batches come from and in which form they go to a rank's model."""

    split: Split
    pictures: Pictures
    loading: Loading
    device: torch.device
    channels_last: bool

    def training(self, rows: Iterator[Rows], batch: int, seed: int) -> Iterator[Batch]:
        """Batches of randomly cut and flipped pictures, ``batch`` each."""

        def measure(rows: Rows) -> Geometry:
            shape = self.split.heights[rows.rows], self.split.widths[rows.rows]
            return geometry.for_training(self.pictures, seed, rows.rows, rows.epochs, *shape)

        return self._batches(rows, batch, measure, Cut.for_training(self.pictures))

    def evaluation(self, rows: Iterator[Rows], batch: int) -> Iterator[Batch]:
        """Batches of centre crops, ``batch`` each."""

        def measure(rows: Rows) -> Geometry:
            shape = self.split.heights[rows.rows], self.split.widths[rows.rows]
            return geometry.for_evaluation(self.pictures, *shape)

        return self._batches(rows, batch, measure, Cut.for_evaluation(self.pictures))

    def _batches(
        self, plan: Iterator[Rows], batch: int, measure: Callable[[Rows], Geometry], cut: Cut
    ) -> Iterator[Batch]:
        under_way: deque[Rows] = deque()  # fed to DALI and not yet come out; DALI keeps the order
        names = list(cut.inputs(geometry.EMPTY))

        def feed() -> tuple:
            rows = next(plan)
            under_way.append(rows)
            return self._read(rows.rows), *cut.inputs(measure(rows)).values()

        for images in self._run(feed, names, cut, batch):
            rows = under_way.popleft()
            labels = torch.from_numpy(self.split.labels[rows.rows].astype(np.int64))
            weight = torch.from_numpy(rows.weight)
            to = {"device": self.device, "non_blocking": True}
            yield Batch(images, labels.to(**to), weight.to(**to), rows.rows)

    def _read(self, rows: np.ndarray) -> np.ndarray | list[np.ndarray]:
        if self.split.pixels_file is not None:
            return self.split.pixels[rows]  # (b, H, W, 3) uint8
        return [np.frombuffer(os.fsencode(path), np.uint8) for path in self.split.paths(rows)]

    def _run(self, feed: Callable, names: list[str], cut: Cut, batch: int) -> Iterator[torch.Tensor]:
        gpu = self.device.type == "cuda"
        pipe = Pipeline(
            batch_size=batch,
            num_threads=self.loading.threads or cores_per_rank(),
            device_id=self.device.index if gpu else None,
            prefetch_queue_depth=self.loading.prefetch,
            exec_dynamic=True,
        )
        with pipe:
            node = graph(
                feed,
                names,
                cut,
                self.pictures,
                self.loading,
                raw=self.split.pixels_file is not None,
                gpu=gpu,
                # Pixels laid out as HWC are channels_last already: the permuted view costs nothing.
                layout="HWC" if self.channels_last else "CHW",
            )
            pipe.set_outputs(node)
        pipe.build()
        while True:
            try:
                (out,) = pipe.run()
            except StopIteration:
                return
            images = _tensor(out, self.device)
            yield images.permute(0, 3, 1, 2) if self.channels_last else images


def _tensor(out, device: torch.device) -> torch.Tensor:
    whole = out.as_tensor()
    if device.type == "cpu":
        # The dynamic executor gives every batch memory of its own, which the tensor keeps alive.
        return torch.from_dlpack(whole)
    images = torch.empty(whole.shape(), dtype=torch.float32, device=device)
    feed_ndarray(whole, images, cuda_stream=torch.cuda.current_stream(device))
    return images


def cores_per_rank() -> int:
    """This rank's share of the cores that the machine (or the job's cgroup) grants."""
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
