"""Checkpoints: written whole or not at all, verified when read.

``checkpoints/step_00001234.pt`` is written under a temporary name, synced and renamed; ``latest`` is a
text file with the newest one's name. A checkpoint is enough: it holds weights, optimizer, scaler, step,
the resolved config, the class names, the pictures' fingerprint and the W&B run's id.
"""

import os
import re
import zipfile
from pathlib import Path

import torch

from pipeline.config import UserError

FORMAT = 1
_NAME = re.compile(r"step_(\d{8,})\.pt")


def save(folder: Path, step: int, state: dict, keep: int) -> Path:
    """Writes ``folder/step_XXXXXXXX.pt`` and removes all but the ``keep`` newest.

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
        os.replace(partial, path)
        _write_latest(folder, path.name)
    except (OSError, RuntimeError) as error:
        # torch wraps the file's OSError into a RuntimeError of its own.
        cause = next((e for e in (error, error.__context__) if isinstance(e, OSError)), None)
        partial.unlink(missing_ok=True)
        if cause is None and "PytorchStreamWriter" not in str(error):
            raise
        reason = cause.strerror if cause else "the file system took only part of it"
        raise UserError(
            f"{path}: cannot be written: {reason}; the checkpoints before it are whole, "
            "free some space and run the same command again"
        ) from None
    for old in numbered(folder)[:-keep]:
        old.unlink()
    return path


def numbered(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step_*.pt") if _NAME.fullmatch(path.name))


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run's folder."""
    folder = run / "checkpoints"
    pointer = folder / "latest"
    if pointer.exists() and (folder / pointer.read_text().strip()).is_file():
        return folder / pointer.read_text().strip()
    found = numbered(folder)
    return found[-1] if found else None


def read(path: str | Path, key: str = "checkpoint") -> dict:
    """A checkpoint's content, on the CPU.

    :param path: a checkpoint, or a run's folder (its latest).
    :raises UserError: missing, cut off, damaged, or not a checkpoint of ours; the file stays as it is.
    """
    path = Path(path)
    if path.is_dir():
        found = latest(path)
        if found is None:
            raise UserError(f"{key}: no checkpoint in {path / 'checkpoints'}; train first: launch.train")
        path = found
    try:
        # torch.load does not check the sums that torch.save wrote; zipfile does.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{key}: {path}: no such checkpoint") from None
    except Exception as error:
        raise UserError(_broken(path, f"{type(error).__name__}")) from None
    if damaged:
        raise UserError(_broken(path, f"{damaged} does not match its checksum"))
    if not isinstance(state, dict) or "format" not in state:
        raise UserError(f"{path}: not a checkpoint of launch.train; its weights may still be a state_dict")
    if state["format"] != FORMAT:
        raise UserError(f"{path}: a checkpoint of format {state['format']}, this program reads {FORMAT}")
    return state


def _broken(path: Path, what: str) -> str:
    others = [other.name for other in numbered(path.parent) if other != path]
    mend = f"remove it to go on from {others[-1]}" if others else "remove it to start again"
    return f"{path}: damaged or cut off ({what}); {mend}"


def _write_latest(folder: Path, name: str) -> None:
    partial = folder / "latest.partial"
    partial.write_text(name + "\n")
    os.replace(partial, folder / "latest")
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the renames themselves reach the disk
    finally:
        os.close(descriptor)
