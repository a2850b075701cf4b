"""Files that survive what happens to a job: whole or not at all, or line by line."""

import errno
import hashlib
import os
from io import FileIO
from pathlib import Path

from pipeline.progress import say

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a file system says that takes no more bytes."""


def write_whole(path: Path, content: bytes) -> None:
    """Writes under a temporary name of this process and renames; two writers never share a file.

    When the machine dies, the name has the old content or the new: this is on the disk before it is named.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        partial.write_bytes(content)
        sync(partial)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """What any process has written to a file is on the disk when this returns; of a folder, its names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LineFile:
    """Appends lines to a file. What a full disk does not take is told, kept, and written when it can be."""

    def __init__(self, path: Path):
        self._path = path
        self._file: FileIO | None = None  # opened when there is something to write
        self._pending = b""

    def write(self, line: str) -> None:
        """A finished line is in the file, killed or not, as soon as this returns."""
        waiting = bool(self._pending)
        self._pending += f"{line}\n".encode()
        problem = self._flush()
        if problem and not waiting:
            say(f"{self._path}: {problem}; its lines are kept in memory until there is room")

    def close(self) -> None:
        if self._pending and (problem := self._flush()):
            say(f"{self._path}: {problem}; {self._pending.count(10)} lines are lost")
        if self._file is not None:
            self._file.close()

    def _flush(self) -> str | None:
        """Writes what waits; where the disk is full, what it says."""
        try:
            self._file = self._file or self._path.open("ab", buffering=0)
            while self._pending:
                self._pending = self._pending[self._file.write(self._pending) :]
        except OSError as error:
            if error.errno not in FULL:
                raise
            return error.strerror
        return None


def sha256(path: Path) -> str:
    """Of the file's content, in hex; the file is read in pieces."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def partial_name(path: Path) -> Path:
    """Beside ``path``, of this process alone."""
    return path.with_name(f"{path.name}.{os.uname().nodename}-{os.getpid()}.partial")
