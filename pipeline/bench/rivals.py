"""What a user would pick instead, as its documentation says, over the same folder of pictures.

All deliver float32, normalised, randomly cut as Inception's, flipped by half; none adds colour changes.
"""

from collections.abc import Iterator
from typing import Any

from pipeline.bench.timing import REPEATED, Setting, Stream


def dali(setting: Setting) -> Stream:
    """DALI as its ImageNet example: reader, random crop while decoding, PyTorch's iterator."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIClassificationIterator, LastBatchPolicy

    @pipeline_def(
        batch_size=setting.batch,
        num_threads=setting.threads,
        device_id=None,
        prefetch_queue_depth=setting.prefetch,
        seed=setting.seed,
    )
    def graph():
        encoded, labels = fn.readers.file(file_root=setting.pictures, random_shuffle=True, name="reader")
        decoded = fn.decoders.image_random_crop(
            encoded, output_type=types.RGB, random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3]
        )
        scaled = fn.resize(decoded, size=[setting.size] * 2, interp_type=types.INTERP_LINEAR, antialias=True)
        pictures = fn.crop_mirror_normalize(
            scaled,
            mirror=fn.random.coin_flip(probability=0.5),
            mean=[255 * value for value in setting.mean],
            std=[255 * value for value in setting.std],
            dtype=types.FLOAT,
            output_layout="HWC",  # channels last, as ours
        )
        return pictures, labels

    pipe = graph()
    pipe.build()
    size = pipe.reader_meta("reader")["epoch_size"]
    epoch = DALIClassificationIterator(
        pipe, reader_name="reader", auto_reset=True, last_batch_policy=LastBatchPolicy.DROP
    )

    def batches() -> Iterator[Any]:
        while True:
            for (made,) in epoch:
                yield made["data"].permute(0, 3, 1, 2)

    return Stream(size, batches())


def torchvision(setting: Setting) -> Stream:
    """DataLoader over ImageFolder: Pillow decodes, v2 transforms; as torchvision's recipe."""
    import torch
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RandomResizedCrop(setting.size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(setting.mean, setting.std),
        ]
    )
    return _data_loader(_folder(setting, transform), setting)


def torchvision_io(setting: Setting) -> Stream:
    """The same with torchvision's own JPEG decoder, scaling uint8 tensors, and a longer queue."""
    import torch
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RandomResizedCrop(setting.size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(setting.mean, setting.std),
        ]
    )
    folder = _folder(setting, transform, lambda path: decode_image(path, ImageReadMode.RGB))
    return _data_loader(folder, setting, prefetch_factor=4)


def timm(setting: Setting) -> Stream:
    """timm's loader with its training transform, without colour jitter and AutoAugment."""
    import torch
    from timm.data import create_loader

    folder = _folder(setting, None)
    loader = create_loader(
        folder,
        input_size=(3, setting.size, setting.size),
        batch_size=setting.batch,
        is_training=True,
        color_jitter=None,
        auto_augment=None,
        interpolation="bilinear",
        mean=setting.mean,
        std=setting.std,
        num_workers=setting.threads,
        pin_memory=False,
        device=torch.device("cpu"),
    )
    return Stream(_different(folder), (images for images, _ in loader), stride=setting.threads)


def _folder(setting: Setting, transform: Any, loader: Any = None):
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import default_loader

    folder = ImageFolder(setting.pictures, transform, loader=loader or default_loader)
    folder.samples *= -(-REPEATED // len(folder.samples))
    return folder


def _different(folder: Any) -> int:
    return len(folder.targets)


def _data_loader(folder: Any, setting: Setting, **tuned: Any) -> Stream:
    import torch
    from torch.utils.data import DataLoader

    torch.manual_seed(setting.seed)
    loader = DataLoader(
        folder,
        setting.batch,
        shuffle=True,
        num_workers=setting.threads,
        drop_last=True,
        persistent_workers=True,
        **tuned,
    )
    return Stream(_different(folder), (images for images, _ in loader), stride=setting.threads)
