"""Figures on disk: written after each section, beside those that were measured before in the same way."""

import json
from pathlib import Path
from typing import Any

from pipeline.files import write_whole
from pipeline.progress import say

SAME = ("processor", "cores", "gpu", "versions")
"""Of two machines whose figures may stand in one file."""


class Kept:
    """:ivar results: ``machine``, ``setting``, each section by its name, and in ``measured`` when and under
        which load that was. Sections that were in the file stay if machine and setting are the same.

    :param machine: ``machine.describe``. :param setting: ``Plan.told``.
    """

    def __init__(self, file: Path, machine: dict[str, Any], setting: dict[str, Any]):
        self._file = file
        before = _read(file)
        same = [before.get("machine", {}).get(key) == machine.get(key) for key in SAME]
        if before and not (all(same) and before.get("setting") == setting):
            say(f"{file}: measured with another setting or on another machine; it is written anew")
            before = {}
        self.results = before | {"machine": machine, "setting": setting}
        self.results.setdefault("measured", {})

    def keep(self, name: str, found: Any) -> None:
        """In the file too, when this returns."""
        machine = self.results["machine"]
        self.results[name] = found
        self.results["measured"][name] = {"date": machine["date"], "load": machine["load"]}
        write_whole(self._file, (json.dumps(self.results, indent=1, ensure_ascii=False) + "\n").encode())


def _read(file: Path) -> dict[str, Any]:
    """Nothing where there is no such file, or it is not one of ours."""
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
