"""The bytes of pictures, read by threads ahead of the decoder: a slow file system's answers overlap."""

import errno
import os
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipeline.data.index import OWN_FILE, Split

# A network file system's hiccup deserves another try; a file that is not there does not.
FINAL = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP)
PAUSES = (0.1, 1.0)  # seconds before the second and the third try
OTHER_FILES = 1000  # what a training may have open beside the shards

Answer = TypeVar("Answer")


def patiently(read: Callable[[], Answer]) -> Answer:
    """What ``read`` returns, which is asked again where a file system has a hiccup.

    :raises OSError: one that is final for the file, or that of the last try.
    """
    for pause in PAUSES:
        try:
            return read()
        except OSError as error:
            if error.errno in FINAL:
                raise
        time.sleep(pause)
    return read()


def _allow_open(files: int) -> None:
    """As far as the system's own limit goes; the shell's of mostly 1,024 is too low for a thousand shards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        most = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@dataclass(frozen=True)
class Unreadable:
    """Stands where a picture could not be read."""

    reason: str


class Reader:
    """Reads encoded pictures of a split; a context, at whose end the threads are gone.

    :param threads: how many files are asked for at a time.
    """

    def __init__(self, split: Split, threads: int):
        assert not split.decoded
        self._split, self._threads = split, threads
        self._file, self._offset, self._bytes = split.places
        _allow_open(len(os.listdir("/proc/self/fd")) + len(split.files) + OTHER_FILES)
        self._shards = [os.open(file, os.O_RDONLY) for file in split.files]
        self._pool = ThreadPoolExecutor(threads, "read")

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        for shard in self._shards:
            os.close(shard)

    def ahead(self, rows: np.ndarray) -> list[Future]:
        """Starts reading; each future gives a list of pictures, all together those of ``rows`` in order."""
        # One task a picture would cost more in Python than it reads; a few tasks keep all threads busy.
        size = -(-len(rows) // self._threads)
        return [self._pool.submit(self._several, rows[i : i + size]) for i in range(0, len(rows), size)]

    def _several(self, rows: Sequence[int]) -> list[np.ndarray | Unreadable]:
        return [self.read(row) for row in rows]

    def read(self, row: int) -> np.ndarray | Unreadable:
        """(bytes,) uint8: the encoded picture, or why there is none."""
        try:
            return patiently(lambda: self._read(int(row)))
        except OSError as error:
            return Unreadable(error.strerror or str(error))

    def _read(self, row: int) -> np.ndarray | Unreadable:
        if self._file[row] != OWN_FILE:
            found = os.pread(self._shards[self._file[row]], int(self._bytes[row]), int(self._offset[row]))
        else:
            with open(self._split.paths([row])[0], "rb", buffering=0) as file:
                found = file.read()
        if not found:
            return Unreadable("empty")
        if len(found) != self._bytes[row]:
            # The index's height and width, and so the window, are another picture's.
            known = int(self._bytes[row])
            return Unreadable(f"changed since launch.prepare: {len(found)} bytes, the index says {known}")
        return np.frombuffer(found, np.uint8)
