"""Files are read ahead of decoding, many at a time, and a hiccup of the file system is not a bad file."""

import errno
import threading
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from odd_pictures import encoded, photograph

from pipeline.cores import _quota, granted_cores
from pipeline.data import reader as reading
from pipeline.data.batches import Rows
from pipeline.data.feed import Feed
from pipeline.data.index import Split, open_index
from pipeline.data.prepare import write_index
from pipeline.data.reader import Reader, Unreadable
from pipeline.data.sources import Files, Source


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    root, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    paths = [f"{number:02d}.jpg" for number in range(32)]
    for path in paths:
        (root / path).write_bytes(encoded(photograph(rng, 30, 40)))
    files = Files(root, paths, np.zeros(32, np.int64))
    write_index(Source("files", ["a"], {"train": files}), root / "index")
    return open_index(root / "index").split("train")


class Slow(Reader):
    """Of a file system that answers nobody before ``threads`` have asked: one by one it never would."""

    def __init__(self, split: Split, threads: int):
        super().__init__(split, threads)
        self._together = threading.Barrier(threads, timeout=20)

    def _read(self, row: int):
        self._together.wait()
        return super()._read(row)


@pytest.mark.parametrize("threads", [2, 8])
def test_as_many_files_are_asked_for_at_a_time_as_there_are_readers(split, threads):
    with Slow(split, threads) as reader:
        found = [each for future in reader.ahead(np.arange(32)) for each in future.result()]
    assert [each.tobytes() for each in found] == [Path(path).read_bytes() for path in split.paths(range(32))]


@pytest.mark.parametrize("ahead", [1, 3])
def test_reading_runs_so_many_batches_ahead(split, ahead):
    asked: list[int] = []

    class Counting(Reader):
        def ahead(self, rows: np.ndarray) -> list[Future]:
            asked.append(int(rows[0]))
            return super().ahead(rows)

    def plan():
        for start in range(0, 32, 4):
            rows = np.arange(start, start + 4)
            yield Rows(rows, np.zeros(4, np.int64), np.ones(4, np.float32))

    with Counting(split, 2) as reader:
        feed = Feed(split, plan(), reader, ahead, 0, lambda *_: True)
        for number in range(8):
            assert next(feed).rows[0] == 4 * number
            assert len(asked) == min(8, number + ahead)
        with pytest.raises(StopIteration):
            next(feed)


def test_a_hiccup_is_asked_again_and_a_missing_file_is_not(split, monkeypatch):
    monkeypatch.setattr(reading, "PAUSES", (0.0, 0.0))
    tries = []

    class Flaky(Reader):
        def _read(self, row: int):
            tries.append(row)
            if row == 1 and tries.count(1) < 3:
                raise OSError(errno.EIO, "Input/output error")
            if row == 2:
                raise OSError(errno.ESTALE, "Stale file handle")
            if row == 3:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory")
            return super()._read(row)

    with Flaky(split, 1) as reader:
        assert isinstance(reader.read(1), np.ndarray)
        assert reader.read(2) == Unreadable("Stale file handle")
        assert reader.read(3) == Unreadable("No such file or directory")
    assert (tries.count(1), tries.count(2), tries.count(3)) == (3, 3, 1)


def test_cores_are_those_that_are_granted(tmp_path):
    """A container's quota counts, not only the cores that it can see."""
    file = tmp_path / "cpu.max"
    for words, cores in (("max 100000", None), ("250000 100000", 2.5), ("50000 100000", 0.5), ("", None)):
        file.write_text(words)
        assert _quota(file) == cores
    assert _quota(tmp_path / "none") is None
    assert granted_cores() >= 1
