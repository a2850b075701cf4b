"""How many pictures a run trains on, of how many classes and bytes: from its index, or as published."""

from dataclasses import dataclass

from pipeline.config import TrainConfig
from pipeline.data.index import is_index, open_index


@dataclass(frozen=True)
class Pictures:
    """:ivar mean_bytes: that a loader reads for a picture. :ivar origin: where the numbers come from."""

    count: int
    classes: int
    mean_bytes: float
    origin: str


# Of ILSVRC2012_img_train.tar: 147,897,477,120 bytes. CIFAR-10's pictures are stored as pixels.
IMAGENET = Pictures(1_281_167, 1000, 147_897_477_120 / 1_281_167, "ImageNet-1k's published sizes")
CIFAR10 = Pictures(50_000, 10, 3 * 32 * 32, "CIFAR-10's published sizes")


def pictures_of(config: TrainConfig) -> Pictures:
    """Of the config's training split; without an index, those of CIFAR-10 where it trains on 32 pixels or
    less, else of ImageNet.

    :raises UserError: there is an index, but without such a split.
    """
    data = config.data
    if is_index(data.index):
        split = open_index(data.index).split(data.train)
        mean = float(split.places[2].mean()) if len(split) else 0.0
        return Pictures(len(split), len(split.classes), mean, f"the index in {data.index}")
    known = CIFAR10 if data.pictures.size <= 32 else IMAGENET
    origin = f"{known.origin}, for there is no index in {data.index}"
    return Pictures(known.count, known.classes, known.mean_bytes, origin)
