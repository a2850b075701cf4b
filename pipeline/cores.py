"""How many cores this process may use."""

import math
import os
from pathlib import Path


def granted_cores() -> int:
    """Of the machine, as far as the job's affinity and the cgroup's quota grant them."""
    cores = len(os.sched_getaffinity(0))
    quota = _quota(Path("/sys/fs/cgroup/cpu.max"))
    return min(cores, max(1, math.floor(quota))) if quota else cores


def cores_per_rank() -> int:
    """This rank's share of the node's cores."""
    return max(1, granted_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _quota(file: Path) -> float | None:
    """Cores' worth of time that a container (cgroup v2) may use; none if it is not limited."""
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None
