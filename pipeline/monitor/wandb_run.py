"""Weights & Biases as a mirror of what is in a run's folder: one run across restarts, offline without a key.

A thread talks to W&B, and W&B's own process to its server. Training only puts rows into a queue, so that a
slow network, an outage or a wrong key never holds up a step; what could not be sent stays on disk, for
``wandb sync``.
"""

import os
import queue
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import wandb

from pipeline.files import write_whole
from pipeline.monitor.wandb_form import end_of_run, numbers
from pipeline.preempt import PREEMPTED
from pipeline.progress import say

ID_FILE = "wandb_id"
ANSWER_WITHIN, SEND_WITHIN = 10.0, 30.0
"""Seconds for W&B's server to answer at the start, and to take what is left at the end."""
END_WITHIN = 60.0
"""Seconds that the end of a run waits for all of W&B's work."""
WAITING = 20_000
"""Rows kept for a W&B that takes none, before it is given up."""

Task = Callable[[wandb.Run], None]


class WandbRun:
    """Starts at once and returns at once; whatever fails later is told in a line.

    :param code: of ``code_state``. :param run_id: of the run that a checkpoint belongs to; none = the
        folder's, or a new one.
    """

    def __init__(self, folder: Path, name: str, project: str, config: dict, code: dict, run_id: str | None):
        self.id = run_id or _folder_id(folder)
        write_whole(folder / ID_FILE, self.id.encode())
        self._folder = folder
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()  # none = the end
        self._on, self._code = True, 0
        about = {"id": self.id, "name": name, "project": project, "dir": str(folder), "resume": "allow"}
        about |= {"config": config | {"code": code}}
        self._thread = threading.Thread(target=self._work, args=(about,), name="wandb", daemon=True)
        self._thread.start()

    def write(self, row: dict) -> None:
        """A row of metrics.jsonl."""
        self._do(lambda run: run.log(numbers(row)))

    def end(self, step: int) -> None:
        """What the folder holds of the evaluation after the last step: samples.npz, confusion.json."""
        self._do(lambda run: run.log({"step": step, **end_of_run(self._folder)}))

    def close(self, code: int = 0) -> None:
        """:param code: with which the process will end; W&B tells well, badly and preempted apart."""
        self._code = code
        self._tasks.put(None)
        self._thread.join(END_WITHIN)
        if self._thread.is_alive():
            say(f"W&B did not end within {END_WITHIN:g} s; {self._how_to_send()}")
            leaving = threading.Thread(target=_leave, args=(code,), daemon=True)
            leaving.start()
            leaving.join(1.0)

    def _do(self, task: Task) -> None:
        if self._on and self._tasks.qsize() >= WAITING:
            self._off("it takes no rows")
        if self._on:
            self._tasks.put(task)

    def _off(self, why: str | Exception) -> None:
        self._on = False
        say(f"W&B is off from here on: {_line(why)}")

    def _how_to_send(self) -> str:
        return f"send it later with: wandb sync --include-online {self._folder}/wandb/*run-*-{self.id}"

    def _work(self, about: dict) -> None:
        """The thread: from W&B's start to its end."""
        run = None
        try:
            run = self._start(about)
            # Our step is the x axis, so that rows written again after a restart fall on their place.
            run.define_metric("*", step_metric="step")
            while (task := self._tasks.get()) is not None:
                task(run)
        except Exception as error:  # whatever W&B raises: its outages must cost nothing
            self._off(error)
        try:
            if run is not None:
                self._finish(run)
        except Exception as error:
            say(f"W&B did not end well: {_line(error)}; {self._how_to_send()}")
        _leave(self._code)

    def _finish(self, run: wandb.Run) -> None:
        if self._code == PREEMPTED:
            run.mark_preempting()
        run.finish(exit_code=self._code)

    def _start(self, about: dict) -> wandb.Run:
        """Online where a key is known and accepted, else offline."""
        about = about | {"settings": _settings(about["config"]["code"])}
        mode = os.environ.get("WANDB_MODE")
        try:
            mode = mode or ("online" if wandb.login(prompt=False) else "offline")
            return wandb.init(mode=mode, **about)
        except Exception as error:  # a wrong key, or a compute node without internet
            if mode not in (None, "online"):
                raise
            say(f"W&B cannot be reached, logging offline: {_line(error)}; {self._how_to_send()}")
            return wandb.init(mode="offline", **about)


def _settings(code: dict) -> wandb.Settings:
    """What the user's environment does not set otherwise."""
    # W&B reports its own errors home; where there is no way out that delays the end of the process.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    wanted = {"init_timeout": ANSWER_WITHIN, "finish_timeout": SEND_WITHIN}
    wanted = {key: value for key, value in wanted.items() if f"WANDB_{key.upper()}" not in os.environ}
    return wandb.Settings(
        console="off",
        quiet=True,
        silent=True,
        finish_timeout_raises=True,
        # W&B would store the remote as it is written, with a token in it, and the text of what changed.
        disable_git=True,
        git_commit=code.get("commit"),
        git_remote_url=code.get("remote"),
        **wanted,
    )


def _leave(code: int) -> None:
    """Ends W&B's process; left to W&B, that is done when ours ends, which then may wait for ever."""
    with suppress(Exception, SystemExit):  # it may have died
        wandb.teardown(code)


def _folder_id(folder: Path) -> str:
    file = folder / ID_FILE
    return file.read_text().strip() if file.exists() else secrets.token_hex(4)


def _line(error: Exception | str) -> str:
    return " ".join(str(error).split()) or type(error).__name__
