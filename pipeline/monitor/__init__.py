"""Numbers of a run: each goes to metrics.jsonl first; W&B and the progress bar get the same row."""

import time
from pathlib import Path

from pipeline.config import TrainConfig, dump
from pipeline.files import write_whole
from pipeline.machine import hardware
from pipeline.monitor.codebase import CODE, code_state, keep_code
from pipeline.monitor.metrics import MetricsFile
from pipeline.preempt import PREEMPTED, Preempted
from pipeline.progress import Bar, say


class Monitor:
    """What one run reports; a context. On ranks other than the first it exists and stays silent.

    :param step: where the run starts or continues.
    :param wandb_id: the W&B run that a checkpoint belongs to.
    :param pictures: by split what is evaluated, for its rows; what a row says of others at ``step`` is
        forgotten, for it stands under the name of these.
    """

    def __init__(
        self,
        config: TrainConfig,
        step: int,
        steps: int,
        wandb_id: str | None = None,
        pictures: dict[str, str] | None = None,
        *,
        first: bool,
    ):
        self.first, self._pictures = first, pictures or {}
        self._file: MetricsFile | None = None
        self._wandb = None
        self.bar = Bar(config.name, steps, "steps", show=first, done=step)
        if first:
            folder: Path = config.folder
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / "config.yaml", dump(config).encode())
            self._file = MetricsFile(folder / "metrics.jsonl", step, self._pictures)
            code = code_state() | {"hardware": hardware(config.train.device)}
            if step < steps:
                keep_code(folder / CODE, code, step)
            if config.monitor.wandb:
                from pipeline.monitor.wandb_run import WandbRun  # takes a second to import

                about = (folder, config.name, config.monitor.project, config.model_dump(), code, wandb_id)
                self._wandb = WandbRun(*about)

    @property
    def wandb_id(self) -> str | None:
        return self._wandb.id if self._wandb else None

    def found(self, step: int, split: str) -> dict | None:
        """The row that was written before a restart; always none on other ranks than the first.

        None for a run that starts anew: what lies in its folder is of another one.
        """
        return self._file and self._file.known.get((step, split))

    @property
    def trained(self) -> int:
        """The step of the last training row before a restart; always 0 on other ranks than the first."""
        return self._file.trained if self._file else 0

    def write(self, row: dict) -> None:
        """One row: at least step, epoch and split; the time is added here, and of which pictures it is.
        Evaluations are told in a line.
        """
        if self.first:
            row = {"time": time.time(), **row}
            if row["split"] in self._pictures:
                row["pictures"] = self._pictures[row["split"]]
            self._file.write(row)
            if self._wandb:
                self._wandb.write(row)
            if row["split"] in ("val", "test"):
                words = f"{row['split']} loss {row['loss']:.3f}, top-1 {row['top1']:.2%}"
                words += f", of the average {row['ema_top1']:.2%}" if "ema_top1" in row else ""
                say(f"epoch {row['epoch']:.2f}: {words}")

    def end(self, step: int) -> None:
        """Shows what the folder holds of the evaluation after the last step, where it can be shown."""
        if self._wandb:
            self._wandb.end(step)

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        preempted = kind is not None and issubclass(kind, Preempted)
        self.close(PREEMPTED if preempted else int(kind is not None))

    def close(self, code: int = 0) -> None:
        """:param code: with which the process will end."""
        self.bar.close()
        if self._file:
            self._file.close()
        if self._wandb:
            self._wandb.close(code)
