"""What is asked of ``launch.bench probe``."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bench.process import ask, cores

LIMIT = 3600.0
"""Seconds for one process."""
GRID = np.logspace(-6, 5, 45)
"""The probe's; here so that a door need not import it."""


@dataclass(frozen=True)
class Plan:
    """:ivar photographs: by class, of which all pictures are made.
    :ivar train, val: pictures whose features are fitted, and on which lambda is chosen.
    :ivar side: of those pictures, pixels. :ivar model: whose features they are, with random weights.
    :ivar lambdas: of the 45, evenly, that scikit-learn is fitted at one by one.
    :ivar size, batch, extracted: side, pictures a forward pass, and pictures, of the extraction.
    :ivar rounds: of the extraction.
    """

    work: Path
    photographs: dict[str, list[Path]]
    train: int
    val: int
    classes: int
    side: int
    model: str
    lambdas: int
    size: int
    batch: int
    extracted: int
    rounds: int
    threads: int

    def told(self) -> dict[str, Any]:
        """All that figures depend on, as JSON."""
        return {key: value for key, value in asdict(self).items() if key not in ("work", "photographs")}

    def chosen(self) -> list[float]:
        """The lambdas of ``lambdas``, ascending, in the middle of as many equal parts of the grid."""
        places = (np.arange(self.lambdas) + 0.5) * len(GRID) / self.lambdas
        return [float(GRID[int(place)]) for place in places]

    def child(self, function: str, **words: Any) -> dict[str, Any]:
        """What a function of this package tells, in a process of its own on ``threads`` cores.

        :raises RuntimeError: it failed.
        """
        found = ask(f"pipeline.bench.probe.{function}", words, cores(self.threads), LIMIT)
        if "failed" in found:
            raise RuntimeError(f"{function}: {found['failed']}\n{found['errors']}")
        return found
