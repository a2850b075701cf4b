"""The doors: one command a file. Each parses its words, calls the pipeline and sets the exit code.

Exit codes: 0 done, 2 a mistake of the user's (one line on stderr), 75 preempted and saved, else a fault.
"""

import argparse
import errno
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from pipeline.config import UserError
from pipeline.preempt import PREEMPTED, STOP, Preempted

# What a system refuses because of where the user pointed it, because it is full, or by a limit of the user's.
_USERS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST),
    errno.EMFILE,
)


PATIENCE = 15.0
"""Seconds in which torchrun ends a rank whose mistake the first one has told, too."""

NOTE = "EXIT_NOTE"
"""Environment: the file in which a rank leaves its exit code, for whom torchrun's own tells too little."""


def leave(code: int) -> NoReturn:
    """Ends this process with a code that is not a fault, and notes it where the job's script looks for it.

    The first note stands: when one rank ends with a mistake, torchrun asks the others to stop, and those
    would say that they were preempted.
    """
    _note(code)
    sys.exit(code)


def _note(code: int) -> None:
    if path := os.environ.get(NOTE):
        with suppress(OSError), open(path, "x") as note:  # the disk may be what is wrong
            note.write(f"{code}\n")


def note_fault(code: int) -> None:
    """Notes the code of a rank that died without a word; others that were asked to stop then don't count."""
    if path := os.environ.get(NOTE):
        note = Path(path)
        with suppress(OSError):
            if not note.exists() or note.read_text().strip() == str(PREEMPTED):
                note.write_text(f"{code}\n")


def noted(note: Path, code: int) -> int:
    """The code that a rank has left; else ``code``. A full disk leaves an empty note."""
    with suppress(OSError, ValueError):
        return int(note.read_text())
    return code


def parser_of(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A door's parser: ``--help`` shows the examples as they are written."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=name, description=description, epilog=examples, formatter_class=raw)


def split_words(option: str, line: str) -> list[str]:
    """A command line's words that stand in one option, as a shell would take them.

    :raises UserError: a quote that is not closed.
    """
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UserError(f"{option} {line!r}: {str(error).lower()}; a quote within words is \\'") from None


@contextmanager
def preemptible(terminal: bool = True) -> Iterator[None]:
    """Listens from here on, before anything heavy is imported; a job that was stopped and saved exits 75.

    :param terminal: Ctrl-C asks to stop too, and does not end the process where it stands.

    Asked to stop when all is done but W&B's last minute, a job is done, though torchrun ends by the signal:
    the first rank notes that, as it does what comes last.
    """
    STOP.listen(terminal)
    try:
        yield
        if STOP.asked and os.environ.get("RANK", "0") == "0":
            _note(0)
    except Preempted as stopped:
        print(stopped, file=sys.stderr, flush=True)
        leave(PREEMPTED)


@contextmanager
def door() -> Iterator[None]:
    """Turns a UserError into one line and exit code 2, from several ranks too."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _USERS:
            raise
        rank = os.environ.get("RANK", "0")
        if rank != "0":
            # Mostly all ranks find the same mistake. The first one tells it and torchrun then ends the
            # others; one that is still here afterwards found a mistake of its own.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(PATIENCE)
        told = f"{error.filename or 'disk'}: {error.strerror}" if isinstance(error, OSError) else error
        print(f"error: {'' if rank == '0' else f'rank {rank}: '}{told}", file=sys.stderr, flush=True)
        leave(2)
    except KeyboardInterrupt:
        sys.exit(130)
