"""What no loader over JPEGs gets past that decodes whole pictures: decoding alone, from memory."""

import io
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np

from pipeline.bench.made import picture_files
from pipeline.bench.timing import Setting, Stream

MOST = 4000
"""Pictures held in memory."""


def dali(setting: Setting) -> Stream:
    """DALI's CPU decoder on as many threads as the loaders have; pixels stay where they are."""
    from nvidia.dali import fn, pipeline_def, types

    encoded = [np.frombuffer(content, np.uint8) for content in _contents(setting)]
    endless = cycle(encoded)

    @pipeline_def(
        batch_size=setting.batch,
        num_threads=setting.threads,
        device_id=None,
        prefetch_queue_depth=setting.prefetch,
    )
    def graph():
        given = fn.external_source(lambda: [next(endless) for _ in range(setting.batch)], batch=True)
        return fn.decoders.image(given, output_type=types.RGB)

    pipe = graph()
    pipe.build()

    def batches() -> Iterator[range]:
        while True:
            (decoded,) = pipe.run()
            yield range(len(decoded))

    return Stream(len(encoded), batches(), pixels=False)


def pillow(setting: Setting) -> Stream:
    """Pillow on one thread."""
    from PIL import Image

    encoded = _contents(setting)
    endless = cycle(encoded)

    def batches() -> Iterator[list]:
        while True:
            yield [Image.open(io.BytesIO(next(endless))).convert("RGB") for _ in range(setting.batch)]

    return Stream(len(encoded), batches(), pixels=False)


def _contents(setting: Setting) -> list[bytes]:
    """The pictures' files, shuffled."""
    paths = picture_files(Path(setting.pictures))
    draws = np.random.default_rng(setting.seed)
    return [paths[number].read_bytes() for number in draws.permutation(len(paths))[:MOST]]
