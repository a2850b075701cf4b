"""Our loop and its guests take turns in one process, so that all see the same machine.

The loop asks for its next batch when its step is done, whatever it did besides; so what passes between two
of its questions is a whole step of ``launch.train``. Before it gets the next batch, the guests run.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from pipeline.bench.process import reason
from pipeline.bench.step.setting import WARM, Setting
from pipeline.bench.timing import turns
from pipeline.data.batches import Batch

OURS = "ours"


Step = Callable[[], None]
"""Somebody's training step, once, on the batch that is everybody's."""


class Relay:
    """:param guests: by name, what makes a step of the batch; called when our loop, which has compiled by
        then, first asks for a batch.
    :ivar rounds: of each round, by name, what a ``Watch`` told of the turn; of ours ``first`` too, the
        number of its first measured step.
    :ivar failed: why, by name, of guests that cannot run.
    """

    def __init__(self, setting: Setting, device: torch.device, guests: dict[str, Callable[[Batch], Step]]):
        self._setting, self._device, self._guests = setting, device, guests
        self.rounds: list[dict[str, Any]] = []
        self.failed: dict[str, str] = {}

    def batches(self, batch: Batch) -> Iterator[Batch]:
        """What our loop trains on: always the same batch, as often as it is planned."""
        steps = self._warmed(batch)
        for _ in range(WARM):
            yield batch
        for number in range(self._setting.rounds):
            told: dict[str, Any] = {}
            for name in turns([*steps, OURS], number):
                if name == OURS:
                    told[name] = yield from self._our_turn(batch, number)
                else:
                    told[name] = self._turn(steps[name])
            self.rounds.append(told)
        yield batch

    def _warmed(self, batch: Batch) -> dict[str, Step]:
        """The guests' steps, run a few times."""
        steps = {}
        for name, make in self._guests.items():
            try:
                step = make(batch)
                for _ in range(WARM):
                    step()
                steps[name] = step
            except Exception as error:  # a rival may fail in any way, and the others still run
                self.failed[name] = reason(error)
        return steps

    def _our_turn(self, batch: Batch, number: int) -> Iterator[Batch]:
        watch = Watch(self._device)
        yield batch
        for _ in range(self._setting.steps):
            with watch:
                yield batch
        return watch.told() | {"first": self._setting.first(number)}

    def _turn(self, step: Step) -> dict[str, Any]:
        watch = Watch(self._device)
        step()
        for _ in range(self._setting.steps):
            with watch:
                step()
        return watch.told()


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
        """Seconds of each ``steps``, and ``cpu_seconds`` of this process in all of them."""
        return {"steps": self._steps, "cpu_seconds": self._cpu}
