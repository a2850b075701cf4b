"""The last steps on a CPU: scaled, mirrored, normalised, blanked, straight into the batch's tensor.

Done in one go while a picture is in the cache, and without the copies between DALI's operators: these
steps otherwise take longer than decoding (docs/loader.md has the figures). On a GPU DALI does them.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from pipeline.data.recycle import Recycler
from pipeline.data.scale import TOGETHER, Scaler

_NOTHING = np.zeros(1, np.uint8)


def workers(count: int) -> ThreadPoolExecutor:
    """Threads for ``ScaleBatch`` and ``FinishBatch``, within which torch starts none of its own."""
    return ThreadPoolExecutor(count, "finish", initializer=_alone)


def _alone() -> None:
    torch.get_num_threads()  # torch sets a thread's count when it is first asked: ours must come after
    threadpool_limits(1, user_api="openmp")


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
        mean, std = (255 * torch.tensor(values, dtype=torch.float64) for values in (mean, std))
        self._factor, self._bias = (1 / std).float(), (-mean / std).float()  # (3,)
        self._memory = Recycler()
        self.done: deque[torch.Tensor] = deque()
        """Finished batches, (b, S, S, 3) float32, in order."""

    def __call__(self, pictures: list, *numbers: list) -> list[np.ndarray]:
        """What DALI gets back is nothing."""
        given = dict(zip(self._names, numbers, strict=True))
        side = self._side(pictures, given)
        whole = self._memory.take(len(pictures), side, side, 3)
        # A whole line's, so that torch's loops run along it.
        factor, bias = self._factor.repeat(side), self._bias.repeat(side)  # (S * 3,)
        parts = [slice(start, start + TOGETHER) for start in range(0, len(pictures), TOGETHER)]
        tasks = [
            self._pool.submit(self._several, part, whole, factor, bias, pictures, given) for part in parts
        ]
        for task in tasks:
            task.result()
        self.done.append(whole)
        return [_NOTHING] * len(pictures)

    def _side(self, pictures: list, given: dict[str, list]) -> int:
        if self._scaler is None:
            return len(pictures[0])
        return self._scaler.centre or int(given["size"][0][0])

    def _several(
        self,
        part: slice,
        whole: torch.Tensor,
        factor: torch.Tensor,
        bias: torch.Tensor,
        pictures: list,
        given: dict[str, list],
    ) -> None:
        for number in range(len(pictures))[part]:
            pixels = self._scaled(pictures[number], number, given)  # (S, S, 3) uint8
            if "flip" in given and given["flip"][number]:
                pixels = pixels.flip(1)
            place = whole[number]
            lines = place.view(len(place), -1)  # (S, S * 3)
            torch.addcmul(bias, pixels.reshape(lines.shape), factor, out=lines)
            if "erase_shape" in given:
                top, left = map(int, given["erase_start"][number])
                height, width = map(int, given["erase_shape"][number])
                place[top : top + height, left : left + width] = 0

    def _scaled(self, picture: np.ndarray, number: int, given: dict[str, list]) -> torch.Tensor:
        if self._scaler is None:
            return torch.from_numpy(picture)
        corner = given["corner"][number] if "corner" in given else None
        return self._scaler.scaled(picture, given["size"][number], corner)
