"""From a source to an index folder: measures every picture once, so that training never has to.

The folder is written beside its place under a temporary name and renamed when whole. Pictures whose
header cannot be read are left out and listed, with the reason, in ``rejected.tsv``.
"""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from pipeline.config import UserError
from pipeline.data.index import FORMAT, SCHEMA, fingerprint
from pipeline.data.sources import Files, Pixels, Source
from pipeline.progress import track

READABLE = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000")
"""Formats (Pillow's names) that DALI's decoders read."""
HEADER_READERS = 16
"""Threads: headers are small reads, slow only through a network file system's latency."""


def write_index(source: Source, out: Path) -> tuple[int, int]:
    """Writes the index of a source; pictures kept, and pictures rejected.

    :raises UserError: ``out`` holds something else than an index, or no picture is readable.
    """
    if out.exists() and not (out / "index.json").exists() and any(out.iterdir()):
        raise UserError(f"--out {out}: not empty and not an index; give a new folder")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    about, rejected = {}, []
    for name, pictures in source.splits.items():
        if isinstance(pictures, Pixels):
            about[name] = _write_pixels(partial, name, pictures)
        else:
            about[name], bad = _write_files(partial, name, pictures)
            rejected += bad
    whole = {"format": FORMAT, "source": source.name, "classes": source.classes, "splits": about}
    (partial / "index.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    (partial / "rejected.tsv").write_text("".join("\t".join(row) + "\n" for row in rejected))
    _put_in_place(partial, out)
    return sum(split["rows"] for split in about.values()), len(rejected)


def _put_in_place(partial: Path, out: Path) -> None:
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(partial, out)
    shutil.rmtree(old, ignore_errors=True)


def _write_pixels(folder: Path, name: str, pictures: Pixels) -> dict:
    n, height, width, _ = pictures.pixels.shape
    pictures.pixels.tofile(folder / f"{name}.pixels")
    size = height * width * 3
    table = _table(
        [""] * n,
        np.arange(n, dtype=np.int64) * size,
        np.full(n, size),
        pictures.labels,
        np.full(n, height),
        np.full(n, width),
    )
    return _write_table(folder, name, table, "", pictures.pixels)


def _write_files(folder: Path, name: str, pictures: Files) -> tuple[dict, list[tuple[str, str, str]]]:
    root = Path(pictures.root).resolve()
    measured = list(track(_measure_all(root, pictures.paths), f"measure {name}", len(pictures), "pictures"))
    good = np.array([not isinstance(found, str) for found in measured], bool)
    rejected = [
        (name, path, found)
        for path, found in zip(pictures.paths, measured, strict=True)
        if isinstance(found, str)
    ]
    if not good.any():
        raise UserError(f"{root}: none of {len(pictures)} {name} pictures is readable ({rejected[0][2]})")
    kept = np.array([found for found in measured if not isinstance(found, str)], np.int64)  # (N, 3)
    paths = [path for path, fine in zip(pictures.paths, good, strict=True) if fine]
    table = _table(paths, np.zeros(len(kept)), kept[:, 2], pictures.labels[good], kept[:, 0], kept[:, 1])
    return _write_table(folder, name, table, str(root), None), rejected


def _measure_all(root: Path, paths: list[str]) -> Iterator[tuple[int, int, int] | str]:
    with ThreadPoolExecutor(HEADER_READERS) as pool:
        yield from pool.map(lambda path: _measure(root / path), paths)


def _measure(path: Path) -> tuple[int, int, int] | str:
    """Height, width and bytes of a picture file, or why it cannot be used. Reads only the header."""
    try:
        size = path.stat().st_size
        if size == 0:
            return "empty"
        with Image.open(path) as picture:
            if picture.format not in READABLE:
                return f"a {picture.format} file, which cannot be decoded in training"
            return picture.height, picture.width, size
    except UnidentifiedImageError:
        return "not a picture"
    except Exception as error:  # Pillow raises many kinds on damaged headers
        return f"{type(error).__name__}: {error}".replace("\n", " ").replace("\t", " ")


def _table(paths, offsets, sizes, labels, heights, widths) -> pa.Table:
    columns = (paths, offsets, sizes, labels, heights, widths)
    arrays = [pa.array(column, field.type, safe=False) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _write_table(folder: Path, name: str, table: pa.Table, root: str, pixels: np.ndarray | None) -> dict:
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        # One chunk, so that a column is one contiguous view of the mapped file.
        writer.write_table(table, max_chunksize=max(1, table.num_rows))
    return {
        "rows": table.num_rows,
        "pixels": pixels is not None,
        "root": root,
        "fingerprint": fingerprint(table, pixels),
    }
