"""Scaling on a CPU, within DALI's graph, by torch: to the bit what torchvision makes of uint8 tensors.

DALI's own CPU scaling takes several times as long, longer than decoding (docs/loader.md has the figures);
torch's kernel for three channels of uint8 is vectorised. On a GPU DALI scales.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

TOGETHER = 8  # pictures a task: enough to outweigh Python's part
# What F.interpolate calls; called directly for their ``out``, because a new tensor for every picture would
# take as long again as scaling.
_KERNELS = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.out,
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.out,
}


class Scaler:
    """A function for ``fn.python_function``: the windows of a batch, scaled, on several threads.

    What it returns is overwritten by the next call; DALI copies it before.

    :param interpolation: "bilinear" or "bicubic".
    :param centre: side of the square that is cut out of each scaled window, pixels; none = all of it.
    """

    def __init__(self, interpolation: str, centre: int | None, pool: ThreadPoolExecutor):
        self._kernel, self._centre, self._pool = _KERNELS[interpolation], centre, pool
        self._whole = torch.empty(0, dtype=torch.uint8)

    def __call__(self, windows: list, sizes: list, *corners: list) -> list[np.ndarray]:
        """:param windows: (H, W, 3) uint8 each. :param sizes: (2,) each, height and width after scaling.

        :param corners: (2,) each: top, left of the ``centre`` square.
        """
        places = self._places(len(windows), sizes)
        arguments = (windows, sizes, places, *corners)
        tasks = [
            self._pool.submit(self._several, *(each[i : i + TOGETHER] for each in arguments))
            for i in range(0, len(windows), TOGETHER)
        ]
        return [scaled for task in tasks for scaled in task.result()]

    def _places(self, count: int, sizes: list) -> list:
        """Where each scaled window goes, (h, w, 3): training's are all of one size, evaluation's are not."""
        shapes = [(int(size[0]), int(size[1]), 3) for size in sizes]
        if self._centre is not None:
            return [None] * count
        if self._whole.shape != (count, *shapes[0]):
            self._whole = torch.empty(count, *shapes[0], dtype=torch.uint8)
        return list(self._whole)

    def _several(self, windows: list, sizes: list, places: list, *corners: list) -> list[np.ndarray]:
        found = []
        for number, (window, size, place) in enumerate(zip(windows, sizes, places, strict=True)):
            height, width = int(size[0]), int(size[1])
            scaled = torch.empty(height, width, 3, dtype=torch.uint8) if place is None else place
            # (1, 3, H, W), in the memory order that the kernel for three channels wants
            given, wanted = (
                pixels.permute(2, 0, 1)[None] for pixels in (torch.from_numpy(np.asarray(window)), scaled)
            )
            self._kernel(given, [height, width], False, None, None, out=wanted)
            if corners:
                top, left = map(int, corners[0][number])
                scaled = scaled[top : top + self._centre, left : left + self._centre].contiguous()
            found.append(scaled.numpy())
        return found
