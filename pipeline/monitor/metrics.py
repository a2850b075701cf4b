"""metrics.jsonl: the one truth for numbers. W&B, the progress bar and the report read the same rows."""

import json
from pathlib import Path

from pipeline.files import LineFile, write_whole


class MetricsFile:
    """Appends rows; after a restart, forgets those of steps that will be done again.

    :param path: of ``metrics.jsonl``.
    :param step: the checkpoint's step; rows beyond it belong to work that was lost with the process.
    :param pictures: by split of what is evaluated now; a row of ``step`` that says others is forgotten too.
    """

    def __init__(self, path: Path, step: int, pictures: dict[str, str] | None = None):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = _keep_until(path, step, pictures or {}) if path.exists() else []
        # Of training there may be a million.
        self.known = {(row["step"], row["split"]): row for row in kept if row["split"] != "train"}
        self.trained = max((row["step"] for row in kept if row["split"] == "train"), default=0)
        """Step of the last training row that was kept."""
        self._file = LineFile(path)

    def write(self, row: dict) -> None:
        self._file.write(json.dumps(row))

    def close(self) -> None:
        self._file.close()


def read_rows(path: Path) -> list[dict]:
    """All whole rows; a last line cut off by a kill is left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def told_loss(row: dict) -> str:
    """A training row's, as a person reads it."""
    return "not finite" if row["loss"] is None else f"{row['loss']:.3f}"


def _keep_until(path: Path, step: int, pictures: dict[str, str]) -> list[dict]:
    def stale(row: dict) -> bool:
        now = pictures.get(row["split"])
        return row["step"] == step and None not in (now, row.get("pictures")) and row["pictures"] != now

    kept = [row for row in read_rows(path) if row["step"] <= step and not stale(row)]
    text = "".join(json.dumps(row) + "\n" for row in kept)
    if text != path.read_text():
        write_whole(path, text.encode())
    return kept
