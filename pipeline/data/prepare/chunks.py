"""The work of preparing, cut into chunks: what is finished is kept, so that a killed job goes on.

A chunk is some thousand pictures of a split. Its result, one row a picture, is a small file that appears
whole, after the chunk's shard if pictures are packed. It is taken over by a later job only where the source's
files are still those that it is of.
"""

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from pipeline.cores import granted_cores
from pipeline.data.index import OWN_FILE
from pipeline.data.order import permute
from pipeline.data.prepare.examine import Examiner, Found, examiner_threads
from pipeline.data.prepare.header import Place
from pipeline.data.prepare.how import How
from pipeline.data.prepare.shards import PixelShard, TarShard
from pipeline.data.sources import Files
from pipeline.files import write_whole
from pipeline.progress import Bar

RESULT = pa.schema(
    [
        ("row", pa.int64()),
        ("file", pa.int32()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("digest", pa.binary(16)),
        ("reason", pa.string()),
        ("stamp", pa.list_(pa.int64())),  # of the source's file, by which a later job knows it again
    ]
)
UNPACKED_CHUNK = 4096  # pictures: some seconds of work
TOGETHER = 32  # pictures in a thread's hands
TOGETHER_DECODED = 8  # when what waits for the disk is whole pictures' pixels, some megabytes each

Item, Answer = TypeVar("Item"), TypeVar("Answer")


def results(folder: Path, name: str, files: Files, how: How) -> pa.Table:
    """One row (``RESULT``) for every picture of a split, in order; made now or by an earlier, killed job.

    :param folder: where chunks and shards are kept.
    """
    chunks = _chunks(len(files), how)
    paths = [folder / f"{name}-{number:05d}.rows" for number in range(len(chunks))]
    title = f"{'pack' if how.pack else 'verify' if how.decodes else 'measure'} {name}"
    threads = examiner_threads(how, granted_cores())
    with ThreadPoolExecutor(threads) as pool:
        work = _Work(folder, name, files, how, pool, threads)
        work.drop_changed(chunks, paths)
        done = sum(len(rows) for rows, path in zip(chunks, paths, strict=True) if path.exists())
        with Bar(title, len(files), "pictures", done=done) as bar:
            for number, (rows, path) in enumerate(zip(chunks, paths, strict=True)):
                if not path.exists():
                    write_whole(path, _bytes(work.chunk(number, rows, bar)))
    return pa.concat_tables([_table(path.read_bytes()) for path in paths]).sort_by("row").combine_chunks()


def shard_path(folder: Path, name: str, number: int, how: How) -> Path:
    return folder / f"{name}-{number:05d}.{'pixels' if how.decoded else 'tar'}"


class _Work:
    def __init__(
        self, folder: Path, name: str, files: Files, how: How, pool: ThreadPoolExecutor, threads: int
    ):
        self._folder, self._name, self._files, self._how = folder, name, files, how
        self._pool, self._ahead = pool, threads if how.decoded else 2 * threads
        self._examiner = Examiner(Place(files), files.banner, how)

    def drop_changed(self, chunks: list[np.ndarray], paths: list[Path]) -> None:
        """Removes earlier results that are no longer true: those chunks are to be done again."""
        numbered = enumerate(zip(paths, map(len, chunks), strict=True))
        tables = {path: self._kept(number, path, n) for number, (path, n) in numbered if path.exists()}
        count = sum(table.num_rows for table in tables.values())
        with Bar(f"check {self._name}", count, "pictures", show=count > 0) as bar:
            for path, table in tables.items():
                parts = [part.to_pylist() for part in table.to_batches(TOGETHER)]
                if not all(_in_order(self._pool, self._hold, parts, self._ahead)):
                    path.unlink()
                bar.advance(table.num_rows)

    def _kept(self, number: int, path: Path, n: int) -> pa.Table:
        """What is to be checked of an earlier result of ``n`` pictures; none, and it is removed, where a
        node's end cut it."""
        about = ["row", "stamp", "reason"]
        content = path.read_bytes()
        try:
            found = _table(content).select(about)
        except (pa.ArrowInvalid, OSError):  # Arrow tells a missing end as the latter
            found = None
        lost = self._how.pack and not shard_path(self._folder, self._name, number, self._how).exists()
        # Cut off behind its head it is a table of no rows.
        if found is not None and found.num_rows == n and not lost:
            return found
        path.unlink()
        return RESULT.empty_table().select(about)

    def _hold(self, part: list[dict]) -> bool:
        return all(self._examiner.holds(**known) for known in part)

    def chunk(self, number: int, rows: np.ndarray, bar: Bar) -> pa.Table:
        shard = None
        if self._how.pack:
            path = shard_path(self._folder, self._name, number, self._how)
            shard = PixelShard(path) if self._how.decoded else TarShard(path)
        size = TOGETHER_DECODED if self._how.decoded else TOGETHER
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        kept = []
        for several in _in_order(self._pool, self._examiner.several, parts, self._ahead):
            kept += [self._place(found, number, shard) for found in several]
            bar.advance(len(several))
        if shard:
            shard.finish()
        return pa.Table.from_pylist([dict(zip(RESULT.names, each, strict=True)) for each in kept], RESULT)

    def _place(self, found: Found, number: int, shard: PixelShard | None) -> tuple:
        """The picture's row of ``RESULT``; stored, if pictures are packed."""
        inside = self._files.inside
        file, offset = OWN_FILE, 0
        if shard is not None and found.reason is None:
            file, offset = number, shard.add(found, self._files.labels[found.row])
            found.content = None
        elif inside is not None:
            file, offset = int(inside.number[found.row]), int(inside.offset[found.row])
        about = (found.size, found.height, found.width, found.digest, found.reason, found.stamp)
        return found.row, file, offset, *about


def _chunks(n: int, how: How) -> list[np.ndarray]:
    """Rows of each chunk. Shards hold a random part of the split, for tools that read one after another."""
    rows = permute(np.arange(n), n, 0, 0) if how.pack else np.arange(n)
    size = how.shard if how.pack else UNPACKED_CHUNK
    return [rows[start : start + size] for start in range(0, n, size)]


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Item], Answer], items: Iterable[Item], ahead: int
) -> Iterator[Answer]:
    """``pool.map`` that runs only so far ahead: answers hold pictures."""
    waiting = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _table(content: bytes) -> pa.Table:
    return pa.ipc.open_stream(content).read_all()


def _bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
