"""Tab-separated lines of what happened at a step: bad pictures, steps that were skipped."""

from pathlib import Path

from pipeline.files import LineFile, write_whole


class StepLines(LineFile):
    """After a restart, lines of steps that will be done again are gone.

    :param start: the checkpoint's step.
    """

    def __init__(self, path: Path, start: int):
        if path.exists():
            lines = [line for line in path.read_text().splitlines(True) if line.endswith("\n")]
            kept = [line for line in lines if int(line.split("\t", 1)[0]) <= start]
            write_whole(path, "".join(kept).encode())
        super().__init__(path)

    def add(self, step: int, *words: object) -> None:
        self.write("\t".join(map(str, (step, *words))))
