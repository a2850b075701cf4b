"""One job at a time works in a run's folder; a killed job's claim ends with it."""

import fcntl
from io import TextIOWrapper
from pathlib import Path

CLAIM = ".claim"
"""In the folder: locked by the job that works there."""


def claim(folder: Path) -> TextIOWrapper | None:
    """The lock, until it is closed; none if another job holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / CLAIM).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def in_use(folder: Path) -> bool:
    """Whether a live job holds a folder: on this node, or on any whose file system shares its locks."""
    try:
        with (folder / CLAIM).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such folder, or a file system without locks
        return False
    return False
