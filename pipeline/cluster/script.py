"""A batch script of ``slurm/`` with a run's own settings in it."""

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent.parent / "slurm"
BODY = "job.sh"
_SETTING = re.compile(r"#SBATCH --([a-z-]+)(?:=(.*))?")


def render(name: str, settings: Mapping[str, object], folder: Path) -> str:
    """The script ``slurm/NAME.sbatch`` with other ``#SBATCH`` lines: replaced where they are, else added.

    It runs this process's Python, and the copy of ``job.sh`` in ``folder``, so that no edit of today changes
    a job that waits until tomorrow.

    :param settings: by sbatch's long option; True stands without a value, None leaves what the script says,
        False drops it.
    """
    if any(settings.get(key) for key in ("mem-per-cpu", "mem-per-gpu")):
        settings = {"mem": False} | settings  # sbatch takes one of the three
    wanted = {key: value for key, value in settings.items() if value is not None and value is not False}
    lines, place = [], 0
    for line in (SCRIPTS / f"{name}.sbatch").read_text().splitlines():
        found = _SETTING.fullmatch(line)
        if found and settings.get(found[1]) is False:
            continue
        if found and found[1] in wanted:
            line = _line(found[1], wanted.pop(found[1]))
        lines.append(line)
        if found:
            place = len(lines)
    added = [_line(key, value) for key, value in wanted.items()]
    added.append(f"export PYTHON=${{PYTHON:-{sys.executable}}}")
    text = "\n".join([*lines[:place], *added, *lines[place:]]) + "\n"
    return text.replace(f"slurm/{BODY}", shlex.quote(str(folder / BODY)))


def options() -> set[str]:
    """The options that some script of ``slurm/`` gives."""
    texts = [file.read_text() for file in SCRIPTS.glob("*.sbatch")]
    return {option for text in texts for option, _ in _SETTING.findall(text)}


def body() -> str:
    return (SCRIPTS / BODY).read_text()


def _line(key: str, value: object) -> str:
    if value is True:
        return f"#SBATCH --{key}"
    return f'#SBATCH --{key}="{value}"' if " " in str(value) else f"#SBATCH --{key}={value}"
