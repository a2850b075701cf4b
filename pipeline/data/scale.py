"""Scaling on a CPU, within DALI's graph, by torch: antialiased as Pillow's and torchvision's.

DALI's own CPU scaling takes three to five times as long, more than the decoding (docs/loader.md); torch's
kernel for uint8 is vectorised and rounds as Pillow does. On a GPU DALI scales.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

TOGETHER = 8  # pictures a task: enough to outweigh Python's part


@dataclass(frozen=True)
class Scaler:
    """A function for ``fn.python_function``: the windows of a batch, scaled, on several threads.

    :ivar interpolation: "bilinear" or "bicubic".
    :ivar centre: side of the square that is cut out of each scaled window, pixels; none = all of it.
    """

    interpolation: str
    centre: int | None
    pool: ThreadPoolExecutor

    def __call__(self, windows: list, sizes: list, *corners: list) -> list[np.ndarray]:
        """:param windows: (H, W, 3) uint8 each. :param sizes: (2,) each, height and width after scaling.

        :param corners: (2,) each: top, left of the ``centre`` square.
        """
        tasks = [
            self.pool.submit(self._several, *(each[i : i + TOGETHER] for each in (windows, sizes, *corners)))
            for i in range(0, len(windows), TOGETHER)
        ]
        return [scaled for task in tasks for scaled in task.result()]

    def _several(self, windows: list, sizes: list, *corners: list) -> list[np.ndarray]:
        found = []
        for number, (window, size) in enumerate(zip(windows, sizes, strict=True)):
            # (1, 3, H, W), in the memory order that the kernel for three channels wants
            picture = torch.from_numpy(np.asarray(window)).permute(2, 0, 1)[None]
            shape = (int(size[0]), int(size[1]))
            if picture.shape[2:] != shape:
                picture = F.interpolate(picture, shape, mode=self.interpolation, antialias=True)
            scaled = picture[0].permute(1, 2, 0).numpy()
            if corners:
                top, left = map(int, corners[0][number])
                scaled = scaled[top : top + self.centre, left : left + self.centre]
            found.append(np.ascontiguousarray(scaled))
        return found
