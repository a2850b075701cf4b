"""The index: one row per picture, in Arrow files that all ranks of a node share by memory mapping.

A folder::

    index.json        source, classes, root of the picture files, a fingerprint per split
    train.arrow       where (path | offset), label, height, width, bytes; one file per split
    train.pixels      for small raw pictures only: their uint8 pixels, one after the other

Rows of picture files say a path relative to the root; rows of raw pictures say the byte offset in
the pixels file. The fingerprint is a hash of all rows, by which caches recognise their pictures.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.config import UserError

SCHEMA = pa.schema(
    [
        ("path", pa.large_string()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("label", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
    ]
)
FORMAT = 1


@dataclass(frozen=True)
class Split:
    """The pictures of one split, or some of them.

    :ivar root: folder that the rows' paths are relative to.
    :ivar pixels_file: file of raw pixels, or none if the rows are picture files.
    """

    name: str
    classes: list[str]
    root: Path
    table: pa.Table
    pixels_file: Path | None
    fingerprint: str

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def labels(self) -> np.ndarray:  # (N,) int32
        return self._column("label")

    @cached_property
    def heights(self) -> np.ndarray:  # (N,) int32
        return self._column("height")

    @cached_property
    def widths(self) -> np.ndarray:  # (N,) int32
        return self._column("width")

    @cached_property
    def pixels(self) -> np.ndarray:
        """(N, H, W, 3) uint8, memory-mapped; for raw pictures of one shape."""
        shape = (-1, int(self.heights[0]), int(self.widths[0]), 3)
        whole = np.memmap(self.pixels_file, np.uint8, "r").reshape(shape)
        picture_bytes = int(np.prod(shape[1:]))
        offsets = self._column("offset")
        if np.array_equal(offsets, np.arange(len(self), dtype=np.int64) * picture_bytes):
            return whole
        return _Rows(whole, offsets // picture_bytes)

    def paths(self, rows: np.ndarray) -> list[str]:
        """Full paths of the picture files of these rows."""
        column = self.table.column("path")
        return [os.path.join(self.root, column[int(row)].as_py()) for row in rows]

    def take(self, rows: np.ndarray) -> "Split":
        """Only these rows, in this order, with a fingerprint of their own."""
        rows = np.asarray(rows, np.int64)
        digest = hashlib.sha256(self.fingerprint.encode() + rows.tobytes()).hexdigest()
        table = self.table.take(pa.array(rows))
        return Split(self.name, self.classes, self.root, table, self.pixels_file, digest)

    def _column(self, name: str) -> np.ndarray:
        return self.table.column(name).to_numpy()


class _Rows:
    """Chosen rows of a memory-mapped array, read only when asked for."""

    def __init__(self, whole: np.ndarray, rows: np.ndarray):
        self.whole, self.rows = whole, rows

    def __getitem__(self, which: np.ndarray) -> np.ndarray:
        return self.whole[self.rows[which]]


@dataclass(frozen=True)
class Index:
    """An opened index folder."""

    folder: Path
    source: str
    classes: list[str]
    splits: dict[str, dict]

    def split(self, name: str, key: str = "data.train") -> Split:
        """:raises UserError: the index has no such split; the message names ``key``."""
        if name not in self.splits:
            raise UserError(f"{key}: {self.folder} has no split {name!r}, only {', '.join(self.splits)}")
        about = self.splits[name]
        path = self.folder / f"{name}.arrow"
        try:
            # Memory-mapped: the columns are views of the page cache, which a node's ranks share.
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (OSError, pa.ArrowInvalid):
            raise UserError(f"{path}: missing or damaged; run launch.prepare again") from None
        pixels = self.folder / f"{name}.pixels" if about["pixels"] else None
        if table.num_rows != about["rows"] or (pixels and _size(pixels) != sum_bytes(table)):
            raise UserError(f"{pixels or path}: cut off or not of this index; run launch.prepare again")
        return Split(name, self.classes, Path(about["root"]), table, pixels, about["fingerprint"])


def open_index(folder: str | Path, key: str = "data.index") -> Index:
    """:raises UserError: there is no index; the message names the config's ``key`` and the command."""
    folder = Path(folder)
    try:
        about = json.loads((folder / "index.json").read_text())
    except FileNotFoundError:
        raise UserError(
            f"{key}: no index in {folder}; "
            f"make one: python -m launch.prepare SOURCE --root DIR --out {folder}"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / 'index.json'}: cannot be read ({error}); run launch.prepare again"
        ) from None
    if about.get("format") != FORMAT:
        raise UserError(f"{folder}: an index of format {about.get('format')}, this program reads {FORMAT}")
    return Index(folder, about["source"], about["classes"], about["splits"])


def sum_bytes(table: pa.Table) -> int:
    return int(table.column("bytes").to_numpy().sum())


def fingerprint(table: pa.Table, pixels: np.ndarray | None) -> str:
    """A hash of where every picture is, its label and shape, and of raw pixels themselves."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_large_string(column.type):
            digest.update("\n".join(column.to_pylist()).encode())
        else:
            digest.update(column.to_numpy().tobytes())
    if pixels is not None:
        digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
