"""The index: one row per picture, in Arrow files that all ranks of a node share by memory mapping.

A folder::

    index.json          source, classes, per split where its pictures lie and a fingerprint
    train.arrow         one row a picture (SCHEMA); one file per split
    train-00000.tar     pictures packed into shards (the WebDataset layout), if they were packed
    train-00000.pixels  or stored decoded: uint8 pixels (H, W, 3), one picture after the other
    rejected.tsv        split, path and reason of every picture left out
    duplicates.tsv      training pictures that stand in another split too

A row says in which file its picture lies: a file of its own, or a piece of a shard, of a publisher's
archive or of a pixels file. The fingerprint is a hash of what training sees (path, labels, shape, bytes),
not of where it lies: caches and runs recognise their pictures when they are packed or moved.
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

FORMAT = 2
OWN_FILE = -1
_COLUMNS = [
    ("path", pa.large_string()),  # below the root, or the member's name in an archive
    ("file", pa.int32()),  # number of the split's file that holds it, or OWN_FILE
    ("offset", pa.int64()),  # of its first byte in that file
    ("bytes", pa.int64()),
    ("height", pa.int32()),  # of the part that is the picture: banners at the bottom don't count
    ("width", pa.int32()),
    ("digest", pa.binary(16)),  # BLAKE2b of the stored bytes; null where nobody has read them all
]


def schema(classes: int, multilabel: bool) -> pa.Schema:
    """Columns of a split: ``label``, or ``targets`` (1 shown, 0 hard to tell, -1 not) per class."""
    label = ("targets", pa.list_(pa.int8(), classes)) if multilabel else ("label", pa.int32())
    return pa.schema([*_COLUMNS, label])


@dataclass(frozen=True)
class Split:
    """The pictures of one split, or some of them.

    :ivar root: folder that the rows' paths are relative to.
    :ivar files: shards, archives or pixels files that hold pictures.
    :ivar decoded: the files hold pixels; else they hold encoded pictures.
    """

    name: str
    classes: list[str]
    root: Path
    table: pa.Table
    files: list[Path]
    decoded: bool
    fingerprint: str

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def multilabel(self) -> bool:
        return "targets" in self.table.column_names

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int32; of several labels a picture (N, C) int8, 1 shown, 0 hard to tell, -1 not shown."""
        if self.multilabel:
            flat = self.table.column("targets").combine_chunks().flatten()
            return flat.to_numpy().reshape(len(self), len(self.classes))
        return self._column("label")

    @cached_property
    def heights(self) -> np.ndarray:  # (N,) int32
        return self._column("height")

    @cached_property
    def widths(self) -> np.ndarray:  # (N,) int32
        return self._column("width")

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """File, offset and bytes of each picture: three (N,) arrays."""
        return self._column("file"), self._column("offset"), self._column("bytes")

    @cached_property
    def pixels(self) -> "Stored":
        """The decoded pictures, by row; memory-mapped, shared by a node's ranks."""
        return Stored(self)

    def path(self, row: int) -> str:
        """By which a picture is told: below the root, or in its archive."""
        return self.table.column("path")[int(row)].as_py()

    def paths(self, rows: np.ndarray) -> list[str]:
        """Full paths of these rows' pictures, as files of their own."""
        return [os.path.join(self.root, self.path(row)) for row in rows]

    def take(self, rows: np.ndarray) -> "Split":
        """Only these rows, in this order, with a fingerprint of their own."""
        rows = np.asarray(rows, np.int64)
        digest = hashlib.sha256(self.fingerprint.encode() + rows.tobytes()).hexdigest()
        return self._with(self.table.take(pa.array(rows)), self.files, digest)

    def plus(self, other: "Split") -> "Split":
        """This split's pictures, then the other's."""
        assert self.decoded == other.decoded, f"{self.name}, {other.name}"
        numbers = other._column("file")
        moved = pa.array(np.where(numbers == OWN_FILE, OWN_FILE, numbers + len(self.files)), pa.int32())
        place = other.table.column_names.index("file")
        table = pa.concat_tables([self.table, other.table.set_column(place, "file", moved)])
        digest = hashlib.sha256(f"{self.fingerprint}+{other.fingerprint}".encode()).hexdigest()
        return self._with(table.combine_chunks(), self.files + other.files, digest)

    def relabelled(self, targets: np.ndarray) -> "Split":
        """The same pictures under other labels, (N, C) int8, with a fingerprint of their own."""
        assert targets.shape == self.labels.shape, f"{targets.shape}, {self.labels.shape}"
        assert targets.dtype == np.int8, targets.dtype
        place = self.table.column_names.index("targets")
        column = pa.FixedSizeListArray.from_arrays(pa.array(targets.ravel()), targets.shape[1])
        table = self.table.set_column(place, "targets", column)
        digest = hashlib.sha256(self.fingerprint.encode() + targets.tobytes()).hexdigest()
        return self._with(table, self.files, digest)

    def _with(self, table: pa.Table, files: list[Path], digest: str) -> "Split":
        return Split(self.name, self.classes, self.root, table, files, self.decoded, digest)

    def _column(self, name: str) -> np.ndarray:
        return self.table.column(name).to_numpy()


class Stored:
    """Decoded pictures of a split, read from the mapped files only when asked for."""

    def __init__(self, split: Split):
        self._files = [_mapped(file) for file in split.files]
        self._file, self._offset, self._bytes = split.places
        self._shapes = np.stack([split.heights, split.widths], axis=1)
        self._whole = self._in_one_piece() if len(split) else None

    def __getitem__(self, rows: np.ndarray) -> np.ndarray | list[np.ndarray]:
        """(b, H, W, 3) uint8 of pictures of one shape, copied; else a list of views (H, W, 3)."""
        if self._whole is not None:
            return self._whole[self._offset[rows] // self._bytes[rows]]
        return [self._one(row) for row in np.atleast_1d(rows)]

    def _in_one_piece(self) -> np.ndarray | None:
        """The file as (N, H, W, 3), if each row is one of the N; then a batch is one gather (CIFAR).

        That the rows have one shape is not enough: they may be some of a split whose other pictures, which
        lie in between, have other shapes.
        """
        height, width = map(int, self._shapes[0])
        size = height * width * 3
        one_shape = (self._shapes == self._shapes[0]).all()
        on_the_grid = len(self._files[0]) % size == 0 and not (self._offset % size).any()
        if len(self._files) > 1 or not one_shape or not on_the_grid:
            return None
        return self._files[0].reshape(-1, height, width, 3)

    def _one(self, row: int) -> np.ndarray:
        start = self._offset[row]
        piece = self._files[self._file[row]][start : start + self._bytes[row]]
        return piece.reshape(*self._shapes[row], 3)


@dataclass(frozen=True)
class Index:
    """An opened index folder."""

    folder: Path
    source: str
    classes: list[str]
    splits: dict[str, dict]

    def split(self, name: str, key: str = "data.train", multilabel: bool = False) -> Split:
        """The split of that name; ``train+val`` is one split's pictures and then another's.

        :param multilabel: several labels a picture are welcome.
        :raises UserError: the index has no such split, or one of another kind; the message names ``key``.
        """
        first, *more = (self._split(part, key) for part in name.split("+"))
        for other in more:
            first = first.plus(other)
        if first.multilabel and not multilabel:
            raise UserError(f"{key}: {self.folder} has several labels a picture; here each must have one")
        return first

    def _split(self, name: str, key: str) -> Split:
        if name not in self.splits:
            raise UserError(f"{key}: {self.folder} has no split {name!r}, only {', '.join(self.splits)}")
        about = self.splits[name]
        path = self.folder / f"{name}.arrow"
        try:
            # Memory-mapped: the columns are views of the page cache, which a node's ranks share.
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (OSError, pa.ArrowInvalid):
            raise UserError(f"{path}: missing or damaged; run launch.prepare again") from None
        if table.num_rows != about["rows"]:
            raise UserError(f"{path}: cut off or not of this index; run launch.prepare again")
        root, files = Path(about["root"]), []
        for file in about["files"]:
            files.append(self.folder / file["name"])
            if _size(files[-1]) != file["bytes"]:
                raise UserError(f"{files[-1]}: cut off or not of this index; run launch.prepare again")
        return Split(name, self.classes, root, table, files, about["decoded"], about["fingerprint"])


def is_index(folder: str | Path) -> bool:
    """Whether ``launch.prepare`` has finished one there."""
    return (Path(folder) / "index.json").exists()


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
        raise UserError(
            f"{folder}: an index of format {about.get('format')}, this program reads {FORMAT}; "
            "run launch.prepare again"
        )
    return Index(folder, about["source"], about["classes"], about["splits"])


def fingerprint(table: pa.Table, decoded: bool) -> str:
    """A hash of every picture's name, labels, shape and size; of decoded ones also of the pixels."""
    digest = hashlib.sha256()
    for name in ("path", "bytes", "label", "targets", "height", "width", *["digest"] * decoded):
        if name not in table.column_names:
            continue
        column = table.column(name).combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            column = column.flatten()
        if pa.types.is_large_string(column.type):
            digest.update("\n".join(column.to_pylist()).encode())
        elif pa.types.is_fixed_size_binary(column.type):
            digest.update(b"".join(column.to_pylist()))
        else:
            digest.update(column.to_numpy().tobytes())
    return digest.hexdigest()


def _mapped(file: Path) -> np.ndarray:
    """(bytes,) uint8; also of a shard whose pictures were all left out, for nothing cannot be mapped."""
    return np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
