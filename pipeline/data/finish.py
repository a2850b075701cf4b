"""The last steps on a CPU: scaled, mirrored, normalised, blanked, straight into the batch's tensor.

Done in one go while a picture is in the cache, and without the copies between DALI's operators: these
steps otherwise take longer than decoding (docs/loader.md has the figures). On a GPU DALI does them.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from pipeline.data.recycle import Recycler
from pipeline.data.scale import TOGETHER, Scaler

SERIAL = 2**15 - 1
"""Values at a time: from 2**15 on torch would start threads of its own within ours."""
_NOTHING = np.zeros(1, np.uint8)


class FinishBatch:
    """A function for ``fn.python_function``, the end of DALI's graph: batches come out of ``done``.

    :param names: of the arrays that are given after the pictures: those of ``Cut`` and of ``erase``.
    :param scaler: scales the windows; none = they have their size already.
    :param mean: per channel, of pixels in 0..1; ``std`` likewise.
    """

    def __init__(
        self,
        names: list[str],
        scaler: Scaler | None,
        mean: list[float],
        std: list[float],
        pool: ThreadPoolExecutor,
    ):
        self._names, self._scaler, self._pool = names, scaler, pool
        self._mean, self._std = (255 * torch.tensor(values, dtype=torch.float64) for values in (mean, std))
        self._memory = Recycler()
        self.done: deque[torch.Tensor] = deque()
        """Finished batches, (b, S, S, 3) float32, in order."""

    def __call__(self, pictures: list, *numbers: list) -> list[np.ndarray]:
        """What DALI gets back is nothing."""
        side = self._side(pictures[0], *(each[0] for each in numbers))
        whole = self._memory.take(len(pictures), side, side, 3)
        factor, bias = ((values.float().repeat(side)) for values in (1 / self._std, -self._mean / self._std))
        tasks = []
        for i in range(0, len(pictures), TOGETHER):
            part = slice(i, i + TOGETHER)
            several = (whole[part], factor, bias, pictures[part], *(each[part] for each in numbers))
            tasks.append(self._pool.submit(self._several, *several))
        for task in tasks:
            task.result()
        self.done.append(whole)
        return [_NOTHING] * len(pictures)

    def _side(self, picture: np.ndarray, *numbers: np.ndarray) -> int:
        if self._scaler is None:
            return len(picture)
        return self._scaler.centre or int(dict(zip(self._names, numbers, strict=True))["size"][0])

    def _several(
        self, places: torch.Tensor, factor: torch.Tensor, bias: torch.Tensor, pictures: list, *numbers
    ):
        for place, picture, *given in zip(places, pictures, *numbers, strict=True):
            self._one(place, factor, bias, picture, dict(zip(self._names, given, strict=True)))

    def _one(
        self, place: torch.Tensor, factor: torch.Tensor, bias: torch.Tensor, picture: np.ndarray, given: dict
    ) -> None:
        """:param place: (S, S, 3) float32, where the picture goes.

        :param factor: (S * 3,) of a line's pixels; ``bias`` likewise.
        """
        if self._scaler is None:
            pixels = torch.from_numpy(picture)
        else:
            pixels = self._scaler.scaled(picture, given["size"], given.get("corner"))
        rows = max(1, SERIAL // place[0].numel())
        for top in range(0, len(place), rows):
            part = pixels[top : top + rows]
            part = part.flip(1) if given.get("flip") else part
            wanted = place[top : top + rows].flatten(1)  # (rows, S * 3)
            torch.addcmul(bias, part.reshape(wanted.shape), factor, out=wanted)
        if "erase_shape" in given:
            top, left = map(int, given["erase_start"])
            height, width = map(int, given["erase_shape"])
            place[top : top + height, left : left + width] = 0
