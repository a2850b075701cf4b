"""What is asked of ``launch.bench step``, and who takes part in it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.bench.process import cores
from pipeline.bench.step.players import Entrant
from pipeline.bench.step.setting import Setting

LIMIT = 1800.0
"""Seconds for one process until it is ready, compiling included; and for a turn."""
OURS = "ours"
"""The contestant that must not fail."""


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


@dataclass(frozen=True)
class Plan:
    """:ivar workloads: each is run against the rivals; the first one is looked at closely, the last one's
        network is saved.
    :ivar threads: and cores, of everybody; and ranks, in scaling.
    :ivar runs: of each whole command, in ``starting``; of checkpoints, in ``saving``.
    """

    workloads: tuple[Workload, ...]
    work: Path
    runs: int
    threads: int
    device: str
    precision: str

    def told(self) -> dict[str, Any]:
        """All that figures depend on, as JSON."""
        about = asdict(self) | {"workloads": [asdict(one) for one in self.workloads]}
        return {key: value for key, value in about.items() if key != "work"}

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """For what a process leaves behind; gone afterwards."""
        self.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="step-", dir=self.work) as folder:
            yield Path(folder)

    def loop(
        self,
        workload: Workload,
        folder: Path,
        changes: dict[str, Any],
        *,
        on: list[int] | None = None,
        ranks: int = 0,
        with_parts: bool = False,
    ) -> Entrant:
        """Our loop. :param folder: for its run alone. :param changes: of its config, by dotted key."""
        words = {"setting": self._setting(workload, folder, changes), "with_parts": with_parts}
        return Entrant("pipeline.bench.step.ours:asked", words, on or cores(self.threads), ranks)

    def guest(self, workload: Workload, folder: Path, name: str, changes: dict[str, Any]) -> Entrant:
        """One of ``guests``, by name. :param changes: of our loop's config."""
        words = {"setting": self._setting(workload, folder, changes), "name": name}
        return Entrant("pipeline.bench.step.guests:asked", words, cores(self.threads))

    def _setting(self, workload: Workload, folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
        about = {"device": self.device, "precision": self.precision, "changes": changes}
        return asdict(Setting(**asdict(workload), folder=str(folder), **about))
