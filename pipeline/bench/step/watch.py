"""Seconds of single steps, and of the processor's work in them."""

import time
from typing import Any

import torch


class Watch:
    """Times what runs within it, each time anew, with nothing left in the device's queue."""

    def __init__(self, device: torch.device):
        self._gpu = device.type == "cuda"
        self._steps: list[float] = []
        self._cpu = 0.0

    def __enter__(self) -> None:
        self._wait()
        self._begun = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        self._wait()
        self._steps.append(time.perf_counter() - self._begun[0])
        self._cpu += time.process_time() - self._begun[1]

    def _wait(self) -> None:
        if self._gpu:
            torch.cuda.synchronize()

    def told(self) -> dict[str, Any]:
        """Seconds of each of ``steps``, and ``cpu_seconds`` of this process in all of them."""
        return {"steps": self._steps, "cpu_seconds": self._cpu}
