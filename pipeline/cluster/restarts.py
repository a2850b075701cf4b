"""Whether a job that ended is queued again: only if that may help.

A job keeps ``slurm/job-ID.json`` in its run's folder: how far the run was at each start. Code 75 (preempted
and saved) queues it again, and so does a fault that may be the machine's; but a job that got no further in
two starts in a row ends.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.files import write_whole
from pipeline.preempt import PREEMPTED

FRUITLESS = 2
"""Starts in a row without a step after which a job is not started again. Not one: a node may be broken, and
a preemption may come before the first step."""
FAULTS = 5
"""Faults after which a job is not queued again, however far it got in between."""
RESTARTS = 100
"""Starts in all."""
MISTAKE = 2


@dataclass
class History:
    """:ivar starts: of each start of the job, how far the run was; see ``progress``.
    :ivar faults: ends that were faults.
    """

    starts: list[int] = field(default_factory=list)
    faults: int = 0

    @classmethod
    def read(cls, file: Path) -> "History":
        """A new one, where there is none that can be read."""
        try:
            return cls(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, file: Path) -> None:
        write_whole(file, json.dumps(vars(self)).encode())

    def begin(self, reached: int) -> str | None:
        """Notes a start. Why it must be none: SLURM itself brings a job back whose node dies, every time."""
        stuck = self._stuck(reached)
        self.starts.append(reached)
        return f"{FRUITLESS} starts in a row did not get the run any further" if stuck else None

    def end(self, code: int, reached: int) -> tuple[bool, str]:
        """Whether the job is queued again after its ranks ended with this code, and why (not)."""
        if code == 0:
            return False, "done"
        if code == MISTAKE:
            return False, "a mistake, which another start would only repeat"
        what = "preempted and saved" if code == PREEMPTED else f"a fault (code {code})"
        self.faults += code != PREEMPTED
        if self._stuck(reached):
            return False, f"{what}, but {FRUITLESS} starts in a row did not get the run any further"
        if self.faults >= FAULTS:
            return False, f"{what}, the {self.faults}th of this job"
        if len(self.starts) >= RESTARTS:
            return False, f"{what}, and the job was started {len(self.starts)} times"
        return True, what

    def _stuck(self, reached: int) -> bool:
        before = self.starts[-FRUITLESS:]
        return len(before) == FRUITLESS and set(before) == {reached}


def progress(run: Path) -> int:
    """A number that changes when a run gets further: steps in checkpoints, of transfers too, answers, and
    pictures whose features are computed (for all runs of the folder: they share them)."""
    folders = {file.parent.parent for file in run.rglob("checkpoints/step_*.pt")}
    features = [folder / "features" for folder in run.parents if (folder / "features").is_dir()][:1]
    grown = sum(_rows(file) for folder in features for file in folder.rglob("progress.json"))
    whole = sum(1 for folder in features for _ in folder.rglob("*.npy"))
    answers = sum(1 for name in ("**/*.npz", "**/score.json") for _ in run.glob(f"transfer/*/{name}"))
    return sum(map(saved_step, folders)) + answers + grown + whole


def _rows(file: Path) -> int:
    """Of an array that grows (``transfer.cache``)."""
    try:
        return int(json.loads(file.read_text())["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def saved_step(run: Path) -> int:
    """Of the newest checkpoint; 0 if there is none."""
    names = [file.stem.removeprefix("step_") for file in run.glob("checkpoints/step_*.pt")]
    return max((int(name) for name in names if name.isdigit()), default=0)
