"""Checkpoints are written while training goes on; a disk that takes none is told, and tried again."""

import threading
from pathlib import Path

from pipeline.config import Checkpoint, UserError
from pipeline.progress import say
from pipeline.train import checkpoint

LINES = ("metrics.jsonl", "faults.tsv", "nonfinite.tsv")
"""Of a run's folder: what they say of a checkpoint's steps must not be lost when the machine dies."""


class Writer:
    """Writes one checkpoint at a time, in a thread; of the first rank.

    :param folder: the run's.
    :ivar best: top-1 of the checkpoint that was last kept as the best; -inf if none was.
    """

    def __init__(self, folder: Path, config: Checkpoint, best: float):
        self._folder, self._config, self.best = folder / "checkpoints", config, best
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None
        self.failure: UserError | None = None
        """Why the newest save failed; none if it did not."""

    def save(self, step: int, state: dict, top1: float | None = None) -> None:
        """Begins to write a state that nobody changes any more; waits for the one before.

        :param top1: given when this is the best so far; what the best has reached is noted in the checkpoint.
        """
        self.wait()
        state = state | {"best": self.best if top1 is None else top1}
        lines = [self._folder.parent / name for name in LINES]
        words = (self._folder, step, state, self._config.keep, top1 is not None, lines)
        self._thread = threading.Thread(target=self._write, args=words, name="checkpoint")
        self._thread.start()
        if not self._config.background:
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._fault is not None:
            raise self._fault

    def _write(self, *words) -> None:
        try:
            checkpoint.save(*words)
            self.best, self.failure = words[2]["best"], None
        except UserError as error:
            self.failure = error
            say(f"{error}; training goes on, and the next save is tried")
        except BaseException as error:  # ours: raised in the main thread, where it ends the job
            self._fault = error
