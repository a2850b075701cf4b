"""One job at a time works in a run's folder; a killed job's claim ends with it."""

import fcntl
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from pipeline.progress import say

CLAIM = ".claim"
"""In the folder: locked by the job that works there."""


def claim(folder: Path) -> TextIOWrapper | None:
    """The lock, until it is closed; none if another job holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / CLAIM).open("w")
    if not locked(file, folder):
        file.close()
        return None
    return file


def locked(file: IO | int, folder: Path) -> bool:
    """Locks an open file; false if another process has done so.

    Some file systems have no locks (Lustre without its flock option, NFS without lockd). There it is told,
    and nothing keeps a second job out.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        say(f"{folder}: cannot be locked ({error.strerror}); see to it that only one job works there")
    return True


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
