"""What is asked of ``launch.bench step``, and how a process of it is asked."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.bench.process import ask, cores
from pipeline.bench.step.setting import Setting
from pipeline.config import UserError

LIMIT = 1800.0
"""Seconds for one process, compiling included."""


@dataclass(frozen=True)
class Workload:
    """:ivar size: of the square pictures, pixels. :ivar batch: pictures on each rank.
    :ivar rounds, steps: as ``Setting``'s.
    """

    model: str
    size: int
    batch: int
    rounds: int
    steps: int

    @property
    def title(self) -> str:
        return f"{self.model}, {self.batch} pictures of {self.size}×{self.size}"


@dataclass(frozen=True)
class Plan:
    """:ivar workloads: each is run against the rivals; the first one is looked at closely, the last one's
        network is saved.
    :ivar threads: and cores, of everybody; and ranks, in scaling.
    :ivar runs: of each whole command: scaling, start.
    """

    workloads: tuple[Workload, ...]
    work: Path
    runs: int
    threads: int
    device: str
    precision: str

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """For what a process leaves behind; gone afterwards."""
        self.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="step-", dir=self.work) as folder:
            yield Path(folder)

    def rounds(
        self,
        workload: Workload,
        changes: dict[str, Any],
        guests: tuple[str, ...] = (),
        *,
        on: list[int] | None = None,
        ranks: int = 0,
        with_parts: bool = False,
    ) -> dict[str, Any]:
        """What ``ours.rounds`` tells in a process of its own.

        :param changes: of our loop's config. :param on: cores, by number.
        :raises UserError: what is asked for cannot be run here.
        :raises RuntimeError: our own loop failed; with all that was said.
        """
        with self.folder() as folder:
            about = {"device": self.device, "precision": self.precision, "changes": changes, "guests": guests}
            setting = asdict(Setting(**asdict(workload), folder=str(folder), **about))
            words = {"setting": setting, "with_parts": with_parts}
            where = on or cores(self.threads)
            told = ask("pipeline.bench.step.ours:rounds", words, where, LIMIT, ranks=ranks)
        if "failed" in told:
            kind, _, why = told["failed"].partition(": ")
            if kind == UserError.__name__:
                raise UserError(why)
            raise RuntimeError(f"our own loop failed: {told['failed']}\n{told['errors']}")
        return told
