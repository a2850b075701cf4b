"""Arrays that are computed once: kept whole, checked before they are used again, gone on with when killed.

An array is ``NAME.npy`` with ``NAME.json`` beside it, which says what it is of, this file's version and the
array's sha256. While it grows it lies in a folder of its own with ``progress.json``, by which the next job
knows how much of it is sure.
"""

import hashlib
import json
import os
import shutil
import time
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np

from pipeline.claim import claim
from pipeline.files import partial_name, sha256, write_whole
from pipeline.progress import say

VERSION = 2
"""Of how arrays are made and kept; another version's are made anew."""
SAVE_EVERY = 30.0
"""Seconds of work that a killed job loses at most."""


def kept(file: Path) -> np.ndarray | None:
    """The array, memory-mapped, if it is there and whole; what is wrong with it is told in a line."""
    manifest = file.with_suffix(".json")
    if not (file.exists() and manifest.exists()):
        return None
    try:
        told = json.loads(manifest.read_text())
        state = file.stat()
        if told.get("version") != VERSION:
            wrong = f"of version {told.get('version', 1)}, this program writes {VERSION}"
        elif told["sha256"] != _digest(file, state.st_ino, state.st_size, state.st_mtime_ns):
            wrong = "damaged or cut off"
        else:
            return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        wrong = f"damaged ({type(error).__name__})"
    say(f"{file}: {wrong}; it is computed again")
    return None


@cache
def _digest(file: Path, inode: int, size: int, changed: int) -> str:
    """Read once a process: a file that was touched since is another one."""
    return sha256(file)


class Growing:
    """Arrays of the same number of rows that grow together; a context, which saves when it is left early.

    :param folder: for the unfinished files; what a killed job left in it is gone on with.
    :param names: of the arrays. :param total: rows of each in the end.
    :ivar rows: that are there already.
    """

    def __init__(self, folder: Path, names: list[str], total: int):
        self._lock = claim(folder)
        if self._lock is None:  # a living job computes just the same
            folder = partial_name(folder)
            folder.mkdir(parents=True)
        self._folder, self._total, self.rows = folder, total, 0
        self._files = {name: (folder / name).open("a+b") for name in names}
        self._digests = {name: hashlib.sha256() for name in names}
        self._saved = time.monotonic()
        if not self._resume():
            self._restart()

    def __enter__(self) -> "Growing":
        return self

    def __exit__(self, *error: object) -> None:
        if self._folder.exists():
            self._save()
        self._close()

    def append(self, rows: dict[str, np.ndarray]) -> None:
        """:param rows: (b, D) float32 of every array; D is its own."""
        for name, array in rows.items():
            if self.rows == 0:
                self._write(name, _header((self._total, array.shape[1])))
            self._write(name, np.ascontiguousarray(array, "<f4").tobytes())
        self.rows += len(array)
        if time.monotonic() - self._saved > SAVE_EVERY:
            self._save()

    def finish(self, targets: dict[str, tuple[Path, dict]]) -> None:
        """Each array under its own name.

        :param targets: by the array's name, its file, and what its manifest tells besides.
        """
        assert self.rows == self._total, f"{self.rows} of {self._total} rows"
        self._save()
        for name, (file, about) in targets.items():
            told = about | {"version": VERSION, "sha256": self._digests[name].hexdigest()}
            # First the manifest: with an older array, or none, it means that there is nothing to use.
            write_whole(file.with_suffix(".json"), json.dumps(told, indent=1, sort_keys=True).encode())
            os.replace(self._folder / name, file)
        self.discard()

    def discard(self) -> None:
        """Nothing of it is gone on with."""
        self._close()
        shutil.rmtree(self._folder)

    def _write(self, name: str, content: bytes) -> None:
        self._files[name].write(content)
        self._digests[name].update(content)

    def _save(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        sure = {name: [file.tell(), self._digests[name].hexdigest()] for name, file in self._files.items()}
        told = {"version": VERSION, "rows": self.rows, "total": self._total, "sure": sure}
        write_whole(self._folder / "progress.json", json.dumps(told).encode())
        self._saved = time.monotonic()

    def _resume(self) -> bool:
        """Whether what lies there is sure as far as it is told to be; then it is gone on with from there."""
        try:
            told = json.loads((self._folder / "progress.json").read_text())
            if (told["version"], told["total"]) != (VERSION, self._total):
                return False
            for name, file in self._files.items():
                size, digest = told["sure"][name]
                file.truncate(min(size, file.seek(0, os.SEEK_END)))
                file.seek(0)
                while piece := file.read(1 << 20):
                    self._digests[name].update(piece)
                if self._digests[name].hexdigest() != digest:
                    return False
            self.rows = told["rows"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    def _restart(self) -> None:
        self._digests = {name: hashlib.sha256() for name in self._files}
        for file in self._files.values():
            file.truncate(0)

    def _close(self) -> None:
        for file in self._files.values():
            file.close()
        if self._lock:
            self._lock.close()


def _header(shape: tuple[int, int]) -> bytes:
    """Of an .npy file of float32."""
    out = BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, about)
    return out.getvalue()
