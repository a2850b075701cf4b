"""Tab-separated lines of what happened at a step: bad pictures, steps that were skipped."""

import re
from pathlib import Path

from pipeline.files import LineFile, write_whole

_BREAKS = {ord(sign): repr(sign)[1:-1] for sign in "\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"}
"""What ends a column, or for some readers a line; a file's name may hold it."""


class StepLines(LineFile):
    """After a restart, lines of steps that will be done again are gone.

    :param start: the checkpoint's step.
    :param row: the last step up to which rows of metrics have counted what happened.
    :ivar uncounted: the step of each line that is kept and that no row has counted.
    """

    def __init__(self, path: Path, start: int, row: int):
        self.uncounted: list[int] = []
        if path.exists():
            before = path.read_bytes()
            # Behind the last line's end there is nothing, or a line that a kill cut off.
            lines = before.split(b"\n")[:-1]
            kept = [(step, line) for line in lines if (step := _step(line)) is not None and step <= start]
            self.uncounted = [step for step, _ in kept if step > row]
            content = b"".join(line + b"\n" for _, line in kept)
            if content != before:
                write_whole(path, content)
        super().__init__(path)

    def add(self, step: int, *words: object) -> None:
        """Line ends and tabs within the words are written as in Python's strings."""
        self.write("\t".join(str(word).translate(_BREAKS) for word in (step, *words)))


def _step(line: bytes) -> int | None:
    """None for what is no line of ours."""
    found = re.match(rb"(\d+)\t", line)
    return int(found[1]) if found else None
