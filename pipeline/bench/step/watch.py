"""Seconds of single steps, and of the processor's work in them."""

import time
from typing import Any

import torch


class Watch:
    """Times what runs within it, each time anew. On a GPU by events in the device's queue: a wait between two
    steps would make room for a gap that training does not have."""

    def __init__(self, device: torch.device):
        self._gpu = device.type == "cuda"
        self._marks: list[tuple[Any, Any]] = []
        self._cpu = 0.0

    def __enter__(self) -> None:
        self._begun = self._now(), time.process_time()

    def __exit__(self, *error: object) -> None:
        self._marks.append((self._begun[0], self._now()))
        self._cpu += time.process_time() - self._begun[1]

    def _now(self) -> Any:
        if not self._gpu:
            return time.perf_counter()
        mark = torch.cuda.Event(enable_timing=True)  # CUDA only
        mark.record()
        return mark

    def told(self) -> dict[str, Any]:
        """Seconds of each of ``steps``, and ``cpu_seconds`` of this process in all of them."""
        if self._gpu and self._marks:  # CUDA only
            torch.cuda.synchronize()
            steps = [begun.elapsed_time(ended) / 1000 for begun, ended in self._marks]
        else:
            steps = [ended - begun for begun, ended in self._marks]
        return {"steps": steps, "cpu_seconds": self._cpu}
