"""Files that are there whole or not at all, whatever is killed meanwhile."""

import hashlib
import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Writes under a temporary name of this process and renames; two writers never share a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    partial.write_bytes(content)
    os.replace(partial, path)


def sha256(path: Path) -> str:
    """Of the file's content, in hex; the file is read in pieces."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def partial_name(path: Path) -> Path:
    """Beside ``path``, of this process alone."""
    return path.with_name(f"{path.name}.{os.uname().nodename}-{os.getpid()}.partial")
