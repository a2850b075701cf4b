"""On what a number was measured: processor, cores, memory, versions, command, date."""

import json
import os
import platform
import shlex
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.machine import processor

PACKAGES = ("torch", "torchvision", "nvidia-dali-cuda130", "timm", "pillow", "numpy")
BESIDE_FFCV = ("python", "ffcv", "torch", "numba", "numpy", "opencv-python")


def describe(command: list[str]) -> dict[str, Any]:
    """As JSON. ``load`` is the mean number of running programs in the minute before."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "cores_of_machine": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(command),
        "versions": {"python": platform.python_version(), **versions(PACKAGES)},
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Of those that are installed here."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def ffcv_versions(python: Path) -> dict[str, str]:
    """Of FFCV's own interpreter; empty if it cannot be asked."""
    ask = (
        "import json, platform, sys; from importlib.metadata import distributions;"
        "print(json.dumps({one.metadata['Name'].lower(): one.version for one in distributions()}"
        " | {'python': platform.python_version()}))"
    )
    try:
        found = json.loads(subprocess.run([python, "-c", ask], capture_output=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return {}
    return {name: found[name] for name in BESIDE_FFCV if name in found}
