"""The index's folder: made beside its place, continued after a kill, renamed when whole."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.claim import CLAIM, claim
from pipeline.config import UserError
from pipeline.data.index import FORMAT, fingerprint, is_index, schema
from pipeline.data.prepare.chunks import RESULT, results, shard_path
from pipeline.data.prepare.duplicates import duplicates, without
from pipeline.data.prepare.examine import GONE
from pipeline.data.prepare.header import Place
from pipeline.data.prepare.how import How
from pipeline.data.prepare.shards import PixelShard, write_pixels
from pipeline.data.sources import Files, Pixels, Source
from pipeline.files import write_whole

PLAN = "plan.json"
HEADERS_ONLY = How()
GONE_LIMIT = 0.001
"""Share of a split's pictures: more that cannot be read are a mount or a permission gone, not bad files."""


@dataclass
class Summary:
    """:ivar kept: pictures by split. :ivar rejected: (split, path, reason).
    :ivar duplicates: (path in train, other split, path there). :ivar dropped: training pictures left out
        because of them.
    """

    kept: dict[str, int] = field(default_factory=dict)
    rejected: list[tuple[str, str, str]] = field(default_factory=list)
    duplicates: list[tuple[str, str, str]] = field(default_factory=list)
    dropped: int = 0


@dataclass
class _Prepared:
    """One split, ready to be written: its rows, and where they lie."""

    table: pa.Table
    files: list[Path]
    decoded: bool
    root: str = ""


def write_index(source: Source, out: Path, how: How = HEADERS_ONLY) -> Summary:
    """Writes the index of a source, or goes on writing it.

    :raises UserError: ``out`` holds something else than an index, no picture of a split is usable, many that
        were listed cannot be read, or another process writes it.
    """
    if out.is_mount():
        raise UserError(f"--out {out}: a mount point, which cannot be replaced; give a folder inside it")
    if out.exists() and not is_index(out) and any(out.iterdir()):
        raise UserError(f"--out {out}: not empty and not an index; give a new folder")
    if how.pack and all(isinstance(pictures, Pixels) for pictures in source.splits.values()):
        raise UserError(f"--pack: {source.name}'s small pictures are stored as pixels anyway; leave it out")
    with _workplace(out.with_name(out.name + ".partial"), _plan(source, how)) as folder:
        summary = Summary()
        splits = {name: _prepare(folder, name, source, how, summary) for name in source.splits}
        _sort_out_duplicates(splits, how, summary)
        about = {name: _write_split(folder, name, prepared) for name, prepared in splits.items()}
        summary.kept = {name: prepared.table.num_rows for name, prepared in splits.items()}
        whole = {
            "format": FORMAT,
            "source": source.name,
            "how": asdict(how),
            "classes": source.classes,
            "splits": about,
        }
        (folder / "index.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
        for name, lines in (("rejected", summary.rejected), ("duplicates", summary.duplicates)):
            (folder / f"{name}.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
        # First: killed in between, files too many are in the index and nothing is to be done again.
        _put_in_place(folder, out)
        for leftover in (out / CLAIM, out / PLAN, *out.glob("*.rows")):
            leftover.unlink()
    return summary


@contextmanager
def _workplace(folder: Path, plan: str) -> Iterator[Path]:
    """The folder of an unfinished index: that of an earlier try if it had the same plan, else empty."""
    held = claim(folder)
    if held is None:
        raise UserError(f"{folder}: another process prepares this index; wait for it")
    with held:
        known = folder / PLAN
        goes_on = known.exists() and known.read_text() == plan
        for file in folder.iterdir():
            if file.name != CLAIM and (not goes_on or file.suffix == ".partial"):
                file.unlink()
        write_whole(known, plan.encode())
        yield folder


def _plan(source: Source, how: How) -> str:
    """What an unfinished index must agree on to be continued: the same names and labels, the same treatment.

    Whether the pictures are the same too is asked of each one (``chunks``).
    """
    about = [FORMAT, RESULT.names, source.name, source.classes, asdict(how)]
    digest = hashlib.sha256(json.dumps(about).encode())
    for name, pictures in source.splits.items():
        digest.update(f"{name} {len(pictures)} ".encode() + pictures.labels.tobytes())
        if isinstance(pictures, Files):
            digest.update("\n".join([str(pictures.root), str(pictures.banner), *pictures.paths]).encode())
            digest.update(repr(pictures.inside and pictures.inside.archives).encode())
    return digest.hexdigest()


def _prepare(folder: Path, name: str, source: Source, how: How, summary: Summary) -> _Prepared:
    pictures, columns = source.splits[name], schema(len(source.classes), source.multilabel)
    if isinstance(pictures, Pixels):
        path = folder / f"{name}-00000.pixels"
        digests = write_pixels(PixelShard(path), pictures.pixels)
        n, height, width, _ = pictures.pixels.shape
        size = height * width * 3
        fixed = [np.full(n, each) for each in (size, height, width)]
        paths = [f"{name}/{row}" for row in range(n)]
        where = [np.zeros(n, np.int64), np.arange(n) * size]
        table = _table([paths, *where, *fixed, digests, pictures.labels], columns)
        return _Prepared(table, [path], decoded=True)
    found = results(folder, name, pictures, how)
    reasons = found.column("reason").to_pylist()
    kept = np.array([reason is None for reason in reasons], bool)
    bad = [(name, pictures.paths[row], reasons[row]) for row in np.flatnonzero(~kept)]
    summary.rejected += bad
    gone = [(path, reason) for _, path, reason in bad if reason.startswith(GONE)]
    if len(gone) > max(1, int(GONE_LIMIT * len(pictures))):
        raise UserError(
            f"{pictures.root}: {len(gone)} of {len(pictures)} {name} pictures were listed and are not there "
            f"({gone[0][0]}: {gone[0][1]}); the same command goes on once they can be read"
        )
    if not kept.any():
        why = f"({bad[0][1]}: {bad[0][2]})" if bad else "(there are none)"
        raise UserError(f"{pictures.root}: none of {len(pictures)} {name} pictures is usable {why}")
    paths = [path for path, fine in zip(pictures.paths, kept, strict=True) if fine]
    found = found.filter(pa.array(kept))
    told = [found.column(each.name) for each in RESULT if each.name not in ("row", "reason", "stamp")]
    table = _table([paths, *told, pictures.labels[kept]], columns)
    place = Place(pictures)
    if how.pack:
        shards = -(-len(pictures) // how.shard)
        files = [shard_path(folder, name, number, how) for number in range(shards)]
    else:
        files = place.archives
    return _Prepared(table, files, how.decoded, str(place.root))


def _table(columns: list, fields: pa.Schema) -> pa.Table:
    arrays = []
    for column, about in zip(columns, fields, strict=True):
        if isinstance(column, pa.ChunkedArray):
            arrays.append(column.combine_chunks().cast(about.type))
        elif pa.types.is_fixed_size_list(about.type):
            flat = pa.array(np.asarray(column).ravel(), pa.int8())
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=about.type))
        else:
            arrays.append(pa.array(column, about.type, safe=False))
    return pa.Table.from_arrays(arrays, schema=fields)


def _sort_out_duplicates(splits: dict[str, _Prepared], how: How, summary: Summary) -> None:
    tables = {name: prepared.table for name, prepared in splits.items()}
    found = list(duplicates(tables))
    for row, name, other in found:
        paths = tables["train"].column("path")[row].as_py(), tables[name].column("path")[other].as_py()
        summary.duplicates.append((paths[0], name, paths[1]))
    rows = sorted({row for row, _, _ in found})
    if rows and how.drop_duplicates:
        splits["train"].table = without(tables["train"], rows)
        summary.dropped = len(rows)


def _write_split(folder: Path, name: str, prepared: _Prepared) -> dict:
    table = prepared.table
    with (
        pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        # One chunk, so that a column is one contiguous view of the mapped file.
        writer.write_table(table, max_chunksize=max(1, table.num_rows))
    files = [
        # Shards move with the index's folder; a publisher's archives stay where they are.
        {"name": path.name if path.parent == folder else str(path), "bytes": path.stat().st_size}
        for path in prepared.files
    ]
    return {
        "rows": table.num_rows,
        "root": prepared.root,
        "files": files,
        "decoded": prepared.decoded,
        "fingerprint": fingerprint(table, prepared.decoded),
    }


def _put_in_place(partial: Path, out: Path) -> None:
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(partial, out)
    shutil.rmtree(old, ignore_errors=True)
