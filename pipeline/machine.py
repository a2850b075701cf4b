"""On what a number was measured."""

import os
import platform
from pathlib import Path

from pipeline.cores import granted_cores


def hardware(device: str = "auto") -> str:
    """What a job on this node may use, in words: its GPUs, or its cores where it sees none.

    :param device: "auto", "cpu" or "cuda", as the job was asked to use.
    """
    import torch  # takes seconds, and not all who ask for the processor need it

    if device != "cpu" and torch.cuda.is_available():
        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}"
    return f"{granted_cores()} of {os.cpu_count()} cores of an {processor()}"


def processor() -> str:
    """Its name as Linux knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
