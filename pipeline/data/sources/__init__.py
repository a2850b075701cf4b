"""Where labelled pictures come from: layouts on disk, and collections that can be fetched.

A source is a function from the folder that the user names, or none, and ``Options`` to a ``Source``. What
comes out is checked: a mistake in the layout or a picture that is not the published one is a ``UserError``.
"""

from collections.abc import Callable
from pathlib import Path

from pipeline.config import UserError

from .aircraft import read_aircraft
from .caltech101 import read_caltech101
from .cars import read_cars
from .cifar10 import read_cifar10
from .cub200 import read_cub200
from .imagefolder import read_imagefolder
from .imagenet import read_imagenet
from .mnist import read_fashion_mnist, read_mnist
from .source import Files, Inside, Options, Pixels, Source, nearest
from .subset import carve, select_classes
from .voc2007 import read_voc2007

DEFAULTS = Options()
SOURCES: dict[str, Callable[[Path | None, Options], Source]] = {
    "imagefolder": lambda root, options: read_imagefolder(root),
    "imagenet": lambda root, options: read_imagenet(root),
    "cifar10": lambda root, options: read_cifar10(root),
    "mnist": lambda root, options: read_mnist(root),
    "fashion-mnist": lambda root, options: read_fashion_mnist(root),
    "caltech101": read_caltech101,
    "voc2007": read_voc2007,
    "cub200": read_cub200,
    "aircraft": read_aircraft,
    "cars": read_cars,
}


def read(name: str, root: str | Path | None = None, options: Options = DEFAULTS) -> Source:
    """The source of that name, from the folder (or archive) ``root``.

    :raises UserError: no such source, or what the source itself finds wrong.
    """
    if name not in SOURCES:
        raise UserError(f"{name!r}: no such source; {nearest(name, SOURCES)}")
    return SOURCES[name](None if root is None else Path(root), options)


__all__ = ["SOURCES", "Files", "Inside", "Options", "Pixels", "Source", "carve", "read", "select_classes"]
