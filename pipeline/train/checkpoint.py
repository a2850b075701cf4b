"""Checkpoints: written whole or not at all, verified when read.

``checkpoints/step_00001234.pt`` is written under a temporary name, synced and renamed; ``latest`` and
``best`` are text files with a checkpoint's name. A checkpoint is enough: it holds weights, their average,
optimizer, scaler, step, the resolved config, the class names, the pictures' fingerprint and the W&B run's
id, in the same form whichever engine wrote it and over how many ranks.
"""

import argparse
import os
import pickle
import re
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch

from pipeline.config import UserError
from pipeline.files import sync, write_whole
from pipeline.progress import say

FORMAT = 2
LATEST, BEST = "latest", "best"
_NAME = re.compile(r"step_(\d{8,})\.pt")


def save(
    folder: Path, step: int, state: dict, keep: int, best: bool = False, lines: Iterable[Path] = ()
) -> Path:
    """Writes ``folder/step_XXXXXXXX.pt`` and removes all but the ``keep`` newest, and the best.

    :param best: this one is the best so far.
    :param lines: files, there or not, that reach the disk before it: what they say of its steps is not done
        again.
    :raises UserError: the disk is full or may not be written; what was there before is untouched.
    """
    path = folder / f"step_{step:08d}.pt"
    partial = path.with_suffix(".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save({"format": FORMAT, "step": step, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        for each in filter(Path.exists, lines):
            sync(each)
        os.replace(partial, path)
        # The best first: a run that goes on from this one takes it as kept.
        for pointer in (BEST, LATEST) if best else (LATEST,):
            write_whole(folder / pointer, f"{path.name}\n".encode())
        sync(folder)  # the renames themselves
    except (OSError, RuntimeError) as error:
        # torch wraps the file's OSError into a RuntimeError of its own.
        cause = next((e for e in (error, error.__context__) if isinstance(e, OSError)), None)
        partial.unlink(missing_ok=True)
        if cause is None and "PytorchStreamWriter" not in str(error):
            raise
        reason = cause.strerror if cause else "the file system took only part of it"
        raise UserError(f"{path}: cannot be written: {reason}; the checkpoints before it are whole") from None
    kept = {path, _pointed(folder / BEST)}
    # Which was the best is not known then until there is a better one: what it may have named is kept.
    named = (folder / BEST).stat().st_mtime if None in kept and (folder / BEST).exists() else -1
    for old in [other for other in numbered(folder) if step_of(other) <= step][:-keep]:
        with suppress(FileNotFoundError):  # somebody else has removed it
            if old not in kept and old.stat().st_mtime > named:
                old.unlink()
    return path


def numbered(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted((path for path in folder.glob("step_*.pt") if _NAME.fullmatch(path.name)), key=step_of)


def step_of(path: Path) -> int:
    return int(_NAME.fullmatch(path.name)[1])


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run's folder, whole or not."""
    return next(iter(_newest_first(run)), None)


def read(path: str | Path, key: str = "checkpoint") -> dict:
    """A checkpoint's content, on the CPU; see ``find``."""
    return find(path, key)[1]


def find(path: str | Path, key: str = "checkpoint", tell: bool = True) -> tuple[Path, dict]:
    """The file and the content, on the CPU, of a checkpoint.

    :param path: a checkpoint; a run's folder: its newest that is whole; or its ``checkpoints/best``.
    :param tell: damaged ones that are passed over are told.
    :raises UserError: missing, cut off, damaged, or not a checkpoint of ours; the file stays as it is.
    """
    path = Path(path)
    if path.name in (LATEST, BEST) and path.is_file():
        pointer, path = path, _pointed(path)
        if path is None:
            raise UserError(f"{key}: {pointer}: names no checkpoint; give one of those beside it")
    if not path.is_dir():
        return path, checked(path, whole(path, key))
    files = _newest_first(path)
    if not files:
        raise UserError(f"{key}: no checkpoint in {path / 'checkpoints'}; train first: launch.train")
    failure = None
    for file in files:
        try:
            state = checked(file, whole(file, key))
        except Damaged as damaged:
            failure = failure or damaged
            continue
        if failure is not None and tell:
            say(f"{failure}; going on from {file.name}")
        return file, state
    raise UserError(f"{failure}; no other is whole: remove {path / 'checkpoints'} to start again")


class Damaged(UserError):  # noqa: N818 - read as a word
    """A checkpoint whose bytes are not what was written."""


def whole(path: Path, key: str) -> object:
    """What ``torch.save`` wrote into a file, anybody's: tensors and plain values, on the CPU.

    :raises UserError: no such file, or one that holds more than that. :raises Damaged: its sums don't match.
    """
    try:
        # torch.load does not check the sums that torch.save wrote; zipfile does.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except FileNotFoundError:
        raise UserError(f"{key}: {path}: no such checkpoint") from None
    except Exception as error:
        raise Damaged(f"{path}: damaged or cut off ({type(error).__name__})") from None
    if damaged:
        raise Damaged(f"{path}: damaged or cut off ({damaged} does not match its checksum)")
    return unpickled(path)


def unpickled(path: Path) -> object:
    """``torch.load`` of tensors and plain values alone, on the CPU.

    Argument lists too: torchvision's and timm's training scripts keep theirs beside the weights.

    :raises UserError: it holds anything else. :raises Damaged: it cannot be read.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        what = refused[1] if refused else "objects"
        raise UserError(f"{path}: holds {what} beside tensors; save its state_dict alone") from None
    except Exception as error:
        raise Damaged(f"{path}: damaged or cut off ({type(error).__name__})") from None


def checked(path: Path, state: object) -> dict:
    """:raises UserError: what the file holds is not a checkpoint of ours."""
    if not isinstance(state, dict) or "format" not in state:
        raise UserError(f"{path}: not a checkpoint of launch.train; its weights may still be a state_dict")
    if state["format"] != FORMAT:
        raise UserError(f"{path}: a checkpoint of format {state['format']}, this program reads {FORMAT}")
    return state


def _newest_first(run: Path) -> list[Path]:
    """A run's checkpoints from ``latest`` back. Later ones than that were found damaged and passed over."""
    folder = run / "checkpoints"
    files = numbered(folder)[::-1]
    pointed = _pointed(folder / LATEST)
    return files[files.index(pointed) :] if pointed in files else files


def _pointed(pointer: Path) -> Path | None:
    """None too where the file holds no checkpoint's name: a machine that died may have left it empty."""
    name = pointer.read_text(errors="replace").strip() if pointer.exists() else ""
    return pointer.parent / name if _NAME.fullmatch(name) else None
