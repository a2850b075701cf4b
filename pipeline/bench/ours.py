"""Our loader as a contestant: over picture files, or over an index packed in some way."""

import torch

from pipeline.bench.timing import Setting, Stream
from pipeline.config import Loading, Pictures
from pipeline.data.batches import training_rows
from pipeline.data.index import open_index
from pipeline.data.loader import Loader
from pipeline.data.order import Order

ENDLESS = 1 << 40
"""Steps; nobody waits for the last."""


def stream(setting: Setting) -> Stream:
    """Training batches as ``launch.train`` gets them on a CPU: float32, normalised, channels last."""
    split = open_index(setting.data).split("train")
    loading = Loading(threads=setting.threads, prefetch=setting.prefetch)
    pictures = Pictures(size=setting.size, mean=list(setting.mean), std=list(setting.std))
    loader = Loader(split, pictures, loading, torch.device("cpu"), channels_last=True)
    order = Order(len(split), setting.batch, setting.seed)
    batches = loader.training(training_rows(order, 0, 1, 1, 0, ENDLESS), setting.batch, setting.seed)
    return Stream(len(split), (batch.images for batch in batches))
