"""Scaling on a CPU by torch: to the bit what torchvision's transforms make of uint8 tensors.

DALI's own CPU scaling takes several times as long, longer than decoding (docs/loader.md has the figures);
torch's kernel for three channels of uint8 is vectorised. On a GPU DALI scales.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

TOGETHER = 8
"""Pictures in a thread's hands: enough to outweigh Python's part."""
# What F.interpolate calls; called directly for their ``out``, because a new tensor for every picture would
# take as long again as scaling.
_KERNELS = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.out,
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.out,
}


@dataclass(frozen=True)
class Scaler:
    """:ivar interpolation: "bilinear" or "bicubic".
    :ivar centre: side of the square that is cut out of each scaled window, pixels; none = all of it.
    """

    interpolation: str
    centre: int | None

    def scaled(self, window: np.ndarray, size: np.ndarray, corner: np.ndarray | None = None) -> torch.Tensor:
        """(h, w, 3) uint8 from (H, W, 3) uint8, good until this thread's next call.

        :param size: (2,) height and width after scaling. :param corner: (2,) top, left of the centre.
        """
        height, width = int(size[0]), int(size[1])
        found = _scratch(height * width * 3).view(height, width, 3)
        # (1, 3, H, W), in the memory order that the kernel for three channels wants
        given, wanted = (pixels.permute(2, 0, 1)[None] for pixels in (torch.from_numpy(window), found))
        _KERNELS[self.interpolation](given, [height, width], False, None, None, out=wanted)
        if corner is None:
            return found
        top, left = int(corner[0]), int(corner[1])
        return found[top : top + self.centre, left : left + self.centre]


_threads = threading.local()


def _scratch(count: int) -> torch.Tensor:
    """(count,) uint8 of this thread, whatever it held: fresh memory would cost as much as scaling into it."""
    held = getattr(_threads, "scratch", None)
    if held is None or len(held) < count:
        held = _threads.scratch = torch.empty(count, dtype=torch.uint8)
    return held[:count]


class ScaleBatch:
    """A function for ``fn.python_function``: the windows of a batch, scaled, on several threads."""

    def __init__(self, scaler: Scaler, pool: ThreadPoolExecutor):
        self._scaler, self._pool = scaler, pool

    def __call__(self, windows: list, *numbers: list) -> list[np.ndarray]:
        """:param numbers: sizes and, where a centre is cut out, corners: (2,) each."""
        parts = [slice(start, start + TOGETHER) for start in range(0, len(windows), TOGETHER)]
        given = (windows, *numbers)
        tasks = [self._pool.submit(self._several, *(each[part] for each in given)) for part in parts]
        return [scaled for task in tasks for scaled in task.result()]

    def _several(self, windows: list, *numbers: list) -> list[np.ndarray]:
        # A copy each, for the scratch is used again for the next.
        return [self._scaler.scaled(*one).numpy().copy() for one in zip(windows, *numbers, strict=True)]
