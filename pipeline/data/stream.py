"""One pass of batches through DALI, which mends itself when a picture cannot be decoded."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import torch
from nvidia.dali import OperatorConcurrency, Pipeline, fn, pipeline_def
from nvidia.dali.plugin.pytorch import feed_ndarray

from pipeline.config import Augment
from pipeline.cores import cores_per_rank
from pipeline.data.batches import Rows
from pipeline.data.feed import Fed, Feed
from pipeline.data.finish import workers
from pipeline.data.graph import Cut, Form, Graph
from pipeline.data.reader import Reader


class Stream:
    """:param loader: a ``Loader``: split, pictures, loading, device, dtype.
    :param inputs: from (b,) rows and the batch's plan to the graph's arrays by name.
    """

    def __init__(
        self,
        loader,
        inputs: Callable[[np.ndarray, Rows], dict[str, np.ndarray]],
        cut: Cut,
        augment: Augment,
        batch: int,
        seed: int,
    ):
        self.loader, self.inputs, self.cut, self.augment = loader, inputs, cut, augment
        self.batch, self.seed = batch, seed
        # Pixels laid out as HWC are channels_last already: the permuted view costs nothing.
        layout = "HWC" if loader.channels_last else "CHW"
        half = loader.dtype != torch.float32  # DALI knows no bfloat16; float16 has more digits and fits
        self.form = Form(loader.split.decoded, loader.device.type == "cuda", half, layout)
        self.threads = loader.loading.threads or cores_per_rank()
        self.pool = workers(self.threads)

    def run(self, plan: Iterator[Rows]) -> Iterator[tuple[Fed, torch.Tensor]]:
        """Each batch with its pictures, (b, 3, S, S)."""
        loading, split = self.loader.loading, self.loader.split
        with self.pool, nullcontext() if split.decoded else Reader(split, loading.readers) as reader:
            feed = Feed(split, plan, reader, loading.read_ahead, self.seed, self._decodes_alone)
            under_way: deque[Fed] = deque()  # fed to DALI and not yet come out; DALI keeps the order
            again: deque[Fed] = deque()  # to be fed anew after a failure

            def source() -> tuple:
                fed = again.popleft() if again else next(feed)
                under_way.append(fed)
                fed.arrays = self._arrays(fed.content, fed.rows, fed.plan)
                return fed.arrays

            pipe, graph = self._pipeline(source, self.batch, loading.prefetch)
            while True:
                try:
                    (out,) = pipe.run()
                except StopIteration:
                    return
                except RuntimeError as error:
                    self._mend(feed, under_way, error)
                    again.extend(under_way)
                    under_way.clear()
                    pipe, graph = self._pipeline(source, self.batch, loading.prefetch)
                    continue
                images = self._from_gpu(out) if self.form.gpu else self._finished(graph)
                yield under_way.popleft(), images.to(self.loader.dtype)

    def _arrays(self, content, rows: np.ndarray, plan: Rows) -> tuple:
        return content, *self.inputs(rows, plan).values()

    def _pipeline(self, source: Callable[[], tuple], batch: int, prefetch: int) -> tuple[Pipeline, Graph]:
        one = np.zeros(1, np.int64)
        names = list(self.inputs(one, Rows(one, one, np.ones(1, np.float32))))
        about = (self.cut, self.loader.pictures, self.augment, self.loader.loading, self.form)
        graph = Graph(names, *about, self.pool)

        def define():
            # Not copied: ``source`` sees to it that what is fed stays until it has come out.
            picture, *given = fn.external_source(source, num_outputs=1 + len(names), batch=True, no_copy=True)
            # DALI's conditionals put a zip of their own here, which knows no ``strict``.
            return graph(picture, dict(zip(names, given)))  # noqa: B905

        pipe = pipeline_def(define, enable_conditionals=self.augment.policy != "none")(
            batch_size=batch,
            num_threads=self.threads,
            device_id=self.loader.device.index if self.form.gpu else None,
            prefetch_queue_depth=prefetch,
            exec_dynamic=True,
            # Decoding the next batch need not wait for the functions that finish this one.
            concurrency=OperatorConcurrency.FULL,
        )
        pipe.build()
        return pipe, graph

    def _mend(self, feed: Feed, under_way: deque[Fed], error: RuntimeError) -> None:
        """Replaces what could not be decoded.

        :raises RuntimeError: the given one, if the pictures are not to blame.
        """
        for fed in under_way:
            # Pictures, not places: what fills up the last batch of an evaluation is one again and again.
            pictures, places = np.unique(fed.rows, return_index=True)
            bad = [] if self.form.decoded else self._undecodable(fed, places.tolist())
            # When no picture at all can be decoded it is the decoder (or the GPU) that fails.
            if 0 < len(bad) < max(2, len(pictures)):
                return feed.reject(fed, np.flatnonzero(np.isin(fed.rows, fed.rows[bad])).tolist())
        raise error

    def _undecodable(self, fed: Fed, places: list[int]) -> list[int]:
        """Which of these pictures cannot be decoded, by halving."""
        plan = fed.plan
        part = Rows(plan.rows[places], plan.epochs[places], plan.weight[places], plan.side)
        if self._decodes([fed.content[place] for place in places], fed.rows[places], part):
            return []
        if len(places) == 1:
            return places
        half = len(places) // 2
        return self._undecodable(fed, places[:half]) + self._undecodable(fed, places[half:])

    def _decodes_alone(self, content: np.ndarray, row: int, epoch: int, plan: Rows) -> bool:
        rows, epochs = np.array([row]), np.array([epoch])
        return self._decodes([content], rows, Rows(rows, epochs, np.ones(1, np.float32), plan.side))

    def _decodes(self, content: list[np.ndarray], rows: np.ndarray, plan: Rows) -> bool:
        arrays = self._arrays(content, rows, plan)
        pipe, _ = self._pipeline(lambda: arrays, len(rows), 1)
        try:
            pipe.run()
            return True
        except RuntimeError:
            return False

    def _finished(self, graph: Graph) -> torch.Tensor:
        images = graph.finish.done.popleft().permute(0, 3, 1, 2)
        return images if self.loader.channels_last else images.contiguous()

    def _from_gpu(self, out) -> torch.Tensor:
        whole, device = out.as_tensor(), self.loader.device
        dtype = torch.float16 if self.form.half else torch.float32
        images = torch.empty(whole.shape(), dtype=dtype, device=device)
        feed_ndarray(whole, images, cuda_stream=torch.cuda.current_stream(device))
        return images.permute(0, 3, 1, 2) if self.loader.channels_last else images
