"""Weights & Biases as a mirror of metrics.jsonl: one run across restarts, offline without a key."""

import os
import secrets
import sys
from pathlib import Path

import wandb

ID_FILE = "wandb_id"


class WandbRun:
    """:param run_id: of the run that a checkpoint belongs to; none = the folder's, or a new one."""

    def __init__(self, folder: Path, name: str, project: str, config: dict, run_id: str | None):
        self.id = run_id or _folder_id(folder)
        (folder / ID_FILE).write_text(self.id)
        self._run = wandb.init(
            id=self.id,
            name=name,
            project=project,
            dir=str(folder),
            config=config,
            mode=_mode(),
            resume="allow",
            settings=wandb.Settings(console="off", quiet=True, silent=True),
        )
        # Our step is the x axis, so that rows written again after a restart fall on their place.
        self._run.define_metric("*", step_metric="step")

    def write(self, row: dict) -> bool:
        """Whether W&B still takes rows; if not, that is said once."""
        prefix = row["split"]
        shared = ("step", "epoch", "time", "split")
        numbers = {f"{prefix}/{key}": value for key, value in row.items() if key not in shared}
        try:
            self._run.log({"step": row["step"], "epoch": row["epoch"], **numbers})
        except Exception as error:  # its service died, say; metrics.jsonl has everything
            print(f"W&B is off from here on: {_line(error)}", file=sys.stderr, flush=True)
            return False
        return True

    def close(self) -> None:
        try:
            self._run.finish()
        except Exception as error:
            print(f"W&B did not end well: {_line(error)}", file=sys.stderr, flush=True)


def _folder_id(folder: Path) -> str:
    file = folder / ID_FILE
    return file.read_text().strip() if file.exists() else secrets.token_hex(4)


def _mode() -> str:
    """Online where a key is known and accepted; else offline, to be sent later with ``wandb sync``."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    try:
        return "online" if wandb.login(prompt=False) else "offline"
    except Exception as error:  # a wrong key, or a compute node without internet
        print(f"W&B cannot be reached, logging offline: {_line(error)}", file=sys.stderr, flush=True)
        return "offline"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def open_wandb(*args) -> WandbRun | None:
    """A W&B run, or none with a line saying why: monitoring never stops training."""
    try:
        return WandbRun(*args)
    except Exception as error:  # whatever W&B raises: its outages must cost nothing
        print(f"W&B is off for this run: {_line(error)}", file=sys.stderr, flush=True)
        return None
