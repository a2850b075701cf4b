"""FFCV in an interpreter of its own: its last release needs NumPy 1 and an older torch.

``python -m pipeline.bench.ffcv_rival PICTURES OUT MODE`` writes its file; the rounds then read it. Nothing
of ours is imported that needs more than the standard library.
"""

import os
import sys

import numpy as np

from pipeline.bench.timing import REPEATED, Setting, Stream

MAX_SIDE, QUALITY = 350, 90


def write(pictures: str, out: str, mode: str) -> None:
    """Pictures into FFCV's file, scaled down to ``MAX_SIDE``; ``mode``: jpg or raw."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    image = RGBImageField(write_mode=mode, max_resolution=MAX_SIDE, jpeg_quality=QUALITY)
    partial = f"{out}.{os.getpid()}.partial"
    writer = DatasetWriter(
        partial, {"image": image, "label": IntField()}, num_workers=len(os.sched_getaffinity(0))
    )
    writer.from_indexed_dataset(ImageFolder(pictures))
    os.replace(partial, out)


def stream(setting: Setting) -> Stream:
    """FFCV's loader as in its ImageNet example, but normalising on the CPU.

    Normalising stands before ``ToTensor``: FFCV 1.0.2 never ends planning a graph that goes back from a
    tensor's step to a compiled one.
    """
    os.environ.setdefault("NUMBA_NUM_THREADS", str(setting.threads))
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.reader import Reader
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

    mean, std = 255 * np.array(setting.mean), 255 * np.array(setting.std)
    size = int(Reader(setting.data).num_samples)
    loader = Loader(
        setting.data,
        batch_size=setting.batch,
        num_workers=setting.threads,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        seed=setting.seed,
        indices=np.tile(np.arange(size), -(-REPEATED // size)),
        pipelines={
            "image": [
                RandomResizedCropRGBImageDecoder((setting.size, setting.size)),
                RandomHorizontalFlip(),
                NormalizeImage(mean, std, np.float32),
                ToTensor(),
                ToTorchImage(),
            ],
            "label": [IntDecoder(), ToTensor(), Squeeze()],
        },
    )
    return Stream(size, (images for images, _ in loader))


if __name__ == "__main__":
    write(*sys.argv[1:4])
