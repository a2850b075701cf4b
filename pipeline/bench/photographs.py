"""Pictures to measure loaders with: pieces of real photographs, of ImageNet's size in pixels and bytes.

What a JPEG decoder costs depends on pixels and on compressed bytes, so both are ImageNet's: 500x375, mean
110 kB (ILSVRC 2012 training set: 138 GB, 1,281,167 pictures). Photographs come from two Debian packages;
their drawings and gradients, which compress like no photograph does, are left out by hand.
"""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageFilter

from pipeline.config import UserError
from pipeline.progress import Bar

PACKAGES = ("mate-backgrounds", "plasma-workspace-wallpapers")
MATE = "/usr/share/backgrounds/mate/nature"
PLASMA = "/usr/share/wallpapers/{}/contents/images/2560x1600.jpg"
PHOTOGRAPHS = {
    "boats": [PLASMA.format("EveningGlow")],
    "cups": [PLASMA.format("ColorfulCups")],
    "dune": [f"{MATE}/Dune.jpg"],
    "fallen": [PLASMA.format("FallenLeaf")],
    "forest": [PLASMA.format("Path")],
    "leaf": [f"{MATE}/Blinds.jpg"],
    "meadow": [f"{MATE}/GreenMeadow.jpg"],
    "moss": [PLASMA.format("OneStandsOut")],
    "rain": [f"{MATE}/RainDrops.jpg"],
    "water": [PLASMA.format("BytheWater")],
}
"""By class; 1280 to 2560 pixels wide. Blurred ones are left out too: they are nearly empty."""

SIDES = (500, 375)
"""Long and short side of a picture, pixels: ImageNet's most frequent shape."""
UPRIGHT = 0.25
"""Share of pictures that are taller than wide."""
SCALES_FROM = 1.5
"""Least pixels of the photograph along a side of one of the picture's; up to the whole photograph."""
MEAN_BYTES = 110_000
QUALITIES = range(50, 99)
"""Of which the one is taken whose mean is nearest to ``MEAN_BYTES``; one quality for all pictures."""
PROBED = 120
"""Pictures by which the quality is chosen."""
FORMAT = 1

Finished = TypeVar("Finished")


def debian_photographs() -> dict[str, list[Path]]:
    """By class, the photographs of the Debian packages.

    :raises UserError: one is not installed; the message says the command.
    """
    found = {name: [Path(path) for path in paths] for name, paths in PHOTOGRAPHS.items()}
    for path in chain.from_iterable(found.values()):
        if not path.is_file():
            raise UserError(
                f"{path}: no such photograph; apt-get install --no-install-recommends {' '.join(PACKAGES)}, "
                "or name a folder of your own pictures, <class>/*.jpg: --pictures DIR"
            )
    return found


def make(photographs: dict[str, list[Path]], out: Path, count: int, seed: int = 0) -> Path:
    """Writes ``count`` JPEGs, ``out/<class>/*.jpg``, evenly over the photographs; once made, they stay.

    The same photographs, count and seed give the same files with the same Pillow.

    :raises UserError: ``out`` holds something else; a photograph is unreadable or smaller than a picture.
    """
    wanted = _recipe(photographs, count, seed)
    about = out / "photographs.json"
    if about.is_file() and about.read_text() == wanted:
        return out
    if out.exists() and any(out.iterdir()) and not about.is_file():
        raise UserError(f"{out}: holds something else than pictures made here; name another folder")
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    try:
        with Bar("make pictures", count, "pictures") as bar, ThreadPoolExecutor() as pool:
            quality = _quality(photographs, count, seed, pool)
            for path, encoded in _pieces(photographs, count, seed, pool, lambda cut: _jpeg(cut, quality)):
                target = partial / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(encoded)
                bar.advance()
        (partial / about.name).write_text(wanted)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _recipe(photographs: dict[str, list[Path]], count: int, seed: int) -> str:
    """All that the pictures depend on, as JSON."""
    sources = {
        name: [[str(path), path.stat().st_size] for path in paths] for name, paths in photographs.items()
    }
    made = {"format": FORMAT, "pillow": Image.__version__, "count": count, "seed": seed, "from": sources}
    return json.dumps(made, indent=1) + "\n"


def _quality(photographs: dict[str, list[Path]], count: int, seed: int, pool: ThreadPoolExecutor) -> int:
    """The JPEG quality whose mean size is nearest to ``MEAN_BYTES``."""
    every = max(1, count // PROBED)
    probe = [cut for _, cut in _pieces(photographs, count, seed, pool, lambda cut: cut, every)]

    def mean_bytes(quality: int) -> float:
        return float(np.mean(list(pool.map(lambda cut: len(_jpeg(cut, quality)), probe))))

    low, high = QUALITIES[0], QUALITIES[-1]
    while high - low > 1:  # bytes grow with quality
        middle = (low + high) // 2
        low, high = (middle, high) if mean_bytes(middle) < MEAN_BYTES else (low, middle)
    return min((low, high), key=lambda quality: abs(mean_bytes(quality) - MEAN_BYTES))


def _pieces(
    photographs: dict[str, list[Path]],
    count: int,
    seed: int,
    pool: ThreadPoolExecutor,
    finish: Callable[[Image.Image], Finished],
    every: int = 1,
) -> Iterator[tuple[str, Finished]]:
    """Each ``every``-th picture's path and what ``finish`` makes of it; one photograph at a time is open."""
    flat = [(name, path) for name, paths in photographs.items() for path in paths]
    for place, (name, path) in enumerate(flat):
        numbers = range(place, count, len(flat))[::every]
        whole = _opened(path)

        def one(number: int, whole: Image.Image = whole) -> Finished:
            return finish(_piece(whole, np.random.default_rng([seed, number])))

        for number, made in zip(numbers, pool.map(one, numbers), strict=True):
            yield f"{name}/{number:05d}.jpg", made


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as opened:
            whole = opened.convert("RGB")
    except Exception as error:  # Pillow raises many kinds on damaged files
        raise UserError(f"{path}: not a readable picture ({error})") from None
    if min(whole.size) < SIDES[0]:
        raise UserError(f"{path}: {whole.width}x{whole.height}; needs at least {SIDES[0]} pixels a side")
    return whole


def _piece(whole: Image.Image, draws: np.random.Generator) -> Image.Image:
    """A window anywhere, of any scale up to the whole photograph (log-uniform), scaled down and sharpened."""
    wide, tall = SIDES[::-1] if draws.random() < UPRIGHT else SIDES
    largest = min(whole.width / wide, whole.height / tall)
    scale = float(np.exp(draws.uniform(np.log(min(SCALES_FROM, largest)), np.log(largest))))
    left = draws.uniform(0, whole.width - wide * scale)
    top = draws.uniform(0, whole.height - tall * scale)
    box = (left, top, left + wide * scale, top + tall * scale)
    small = whole.resize((wide, tall), Image.Resampling.LANCZOS, box=box, reducing_gap=3)
    # As picture hosts do after scaling down.
    return small.filter(ImageFilter.UnsharpMask(radius=1, percent=100, threshold=0))


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    """Baseline, 4:2:0: Pillow's defaults."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
