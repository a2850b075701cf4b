"""Shards: many pictures in one file, written one after the other, read by offset.

Encoded pictures go into tar files in the layout of WebDataset, so that other tools read them too:
``000001234.jpg`` with its label beside it, ``000001234.cls`` (or ``.json``: the targets of several
labels). Decoded ones go as bare uint8 pixels, (H, W, 3) each, into a ``.pixels`` file.
"""

import hashlib
import json
import os
import tarfile
from pathlib import Path

import numpy as np

from pipeline.data.prepare.examine import Found
from pipeline.files import partial_name


class PixelShard:
    """A file of pixels being written; under its own name only once it is whole."""

    def __init__(self, path: Path):
        self.path, self._partial = path, partial_name(path)
        self._file = self._partial.open("wb")

    def add(self, found: Found, label: np.ndarray) -> int:
        """Stores a picture; the offset of its first byte."""
        return self.write(found.content)

    def write(self, content: bytes) -> int:
        """Appends; the offset of the first byte."""
        offset = self._file.tell()
        self._file.write(content)
        return offset

    def finish(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._partial, self.path)


class TarShard(PixelShard):
    """A tar file of pictures and their labels."""

    def add(self, found: Found, label: np.ndarray) -> int:
        key = f"{found.row:09d}"
        offset = self._member(f"{key}.{found.extension}", found.content)
        if np.ndim(label):
            self._member(f"{key}.json", json.dumps({"targets": label.tolist()}).encode())
        else:
            self._member(f"{key}.cls", str(int(label)).encode())
        return offset

    def finish(self) -> None:
        # Two empty blocks end a tar; its length is a multiple of a record, as GNU tar has it.
        end = self._file.tell() + 2 * tarfile.BLOCKSIZE
        self.write(bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE))
        super().finish()

    def _member(self, name: str, content: bytes) -> int:
        # No owner, mode or time of this machine: the same pictures give the same bytes everywhere.
        about = tarfile.TarInfo(name)
        about.size = len(content)
        self.write(about.tobuf(tarfile.USTAR_FORMAT))
        offset = self.write(content)
        self.write(bytes(-len(content) % tarfile.BLOCKSIZE))
        return offset


def write_pixels(shard: PixelShard, pixels: np.ndarray) -> list[bytes]:
    """Stores raw pictures, (N, H, W, 3) uint8; the BLAKE2b digest of each."""
    digests = []
    for picture in pixels:
        content = picture.tobytes()
        shard.write(content)
        digests.append(hashlib.blake2b(content, digest_size=16).digest())
    shard.finish()
    return digests
