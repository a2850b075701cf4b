"""The tree is as README draws it: every room is in its list, and imports go down the list only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from conftest import ROOT

SMALL_THINGS = 0
"""Place of the modules that lie beside the rooms: they import nothing of a room, as they are everybody's."""

TIMES_A_DOOR = "pipeline.bench.step.start imports launch"
"""The one exception: what measures how a command starts is that command, with marks in it."""


def listed() -> list[str]:
    """The rooms of pipeline/ in README's order, the lowest first."""
    drawn = (ROOT / "README.md").read_text("utf-8").split("## Rooms")[1].split("```")[1]
    inside = drawn.split("pipeline/\n")[1].split("configs/")[0]
    return re.findall(r"^  (\w+)/", inside, re.MULTILINE)[::-1]


def imported(file: Path) -> Iterator[str]:
    """Modules of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:  # a relative one stays in its room
            yield node.module
            if node.module == "pipeline":
                yield from (f"pipeline.{each.name}" for each in node.names)


def place(module: str, rooms: list[str]) -> int:
    """How high a module stands."""
    name = module.split(".")[1]
    return rooms.index(name) + 1 if name in rooms else SMALL_THINGS


def test_readme_lists_every_room():
    folders = {init.parent.name for init in (ROOT / "pipeline").glob("*/__init__.py")}
    assert sorted(listed()) == sorted(folders)


def test_imports_go_down_the_list_only():
    rooms = listed()
    files = [file for file in (ROOT / "pipeline").rglob("*.py") if file.parent.name != "pipeline"]
    files += (ROOT / "pipeline").glob("[a-z]*.py")
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}
    assert len(modules) > 100
    assert [
        f"{own} imports {other}"
        for own, file in modules.items()
        for other in imported(file)
        if other.startswith("launch")
        or (other.startswith("pipeline.") and place(other, rooms) > place(own, rooms))
    ] == [TIMES_A_DOOR]
