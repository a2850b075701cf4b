"""``launch.train``, with marks where the parts of its start end.

``python -m pipeline.bench.step.start GIVEN WORDS``: WORDS are those of ``launch.train``, GIVEN is when the
command was given, in Unix seconds. After its first step each rank ends, and the first one prints seconds by
part, in their order, as JSON.
"""

import functools
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from pipeline.preempt import process_start

IMPORTS = (("torch", "torch"), ("DALI", "nvidia.dali.plugin.pytorch"), ("our modules", "pipeline.train"))
"""One after the other, so that each is known alone; ``launch.train`` imports them at the same place."""
MARKS = (
    ("ranks join", "pipeline.train.run", "splits"),
    ("index", "pipeline.train.loop", "build_model"),
    ("network", "pipeline.train.loop", "build_engine"),
    ("engine", "pipeline.train.loop", "Monitor"),
    ("monitor", "pipeline.train.engine.base", "Engine.prime"),
    ("first pass", "pipeline.train.meter", "Meter.next"),
    ("first batch", "pipeline.train.engine.base", "Engine.step"),
    ("first step", "pipeline.train.nonfinite", "NonFinite.note"),
)
"""A part ends when a function is called for the first time, which its module and its name there name."""


class Marks:
    """:ivar ends: when each part ended, in Unix seconds."""

    def __init__(self, given: float):
        self._given = given
        self.ends: dict[str, float] = {"launcher": process_start(os.getpid()), "Python": time.time()}

    def note(self, part: str) -> None:
        self.ends.setdefault(part, time.time())
        if part == MARKS[-1][0]:
            self._tell()
            sys.stdout.flush()
            os._exit(0)  # nothing of the run is wanted but its start

    def before(self, part: str, module: str, name: str) -> None:
        """Ends the part when that function is called."""
        place: Any = importlib.import_module(module)
        *owners, last = name.split(".")
        for owner in owners:
            place = getattr(place, owner)
        setattr(place, last, self._noting(part, getattr(place, last)))

    def _noting(self, part: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def noting(*words: Any, **named: Any) -> Any:
            self.note(part)
            return function(*words, **named)

        return noting

    def _tell(self) -> None:
        if os.environ.get("RANK", "0") == "0":
            starts = [self._given, *self.ends.values()]
            parts = zip(self.ends.items(), starts, strict=False)
            # Python's own start is known to a hundredth of a second: it may seem to be before the command.
            told = {part: max(0.0, end - start) for (part, end), start in parts}
            print(json.dumps(told))


def main() -> None:
    marks = Marks(float(sys.argv[1]))
    from launch import train

    load = train.load

    def loaded(*words: Any) -> Any:
        config = load(*words)
        marks.note("config")
        for part, module in IMPORTS:
            importlib.import_module(module)
            marks.note(part)
        for mark in MARKS:
            marks.before(*mark)
        return config

    train.load = loaded
    train.main(sys.argv[2:])


if __name__ == "__main__":
    main()
