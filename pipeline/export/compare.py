"""Does an exported network answer as the checkpoint does?"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.config import Pictures, UserError
from pipeline.export.trained import Trained

BATCHES = (1, 7, 4)
ROUNDING = 1e-4
"""Of the largest logit. Other kernels, and batch norms folded into convolutions, were seen to differ by 1e-6;
an epsilon of 1e-3 for 1e-5 in one batch norm alone, in resnet8 to resnet110 and vgg11_bn, by over 5e-4."""


class Normalise(nn.Module):
    """uint8 pixels to the network's input, both (N, 3, S, S): (pixels / 255 - mean) / std."""

    def __init__(self, pictures: Pictures):
        super().__init__()
        self.register_buffer("mean", torch.tensor(pictures.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(pictures.std).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.float() / 255 - self.mean) / self.std


class Comparison:
    """Random pictures of one size, and the checkpoint's logits for them.

    :raises UserError: the logits are not finite, so that nothing can be compared.
    """

    def __init__(self, trained: Trained, size: int):
        self._path = trained.path
        draw = torch.Generator().manual_seed(0)
        shape = (3, size, size)
        self._pixels = [
            torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=draw) for n in BATCHES
        ]
        normalise = Normalise(trained.config.data.pictures)
        self._images = [normalise(pixels) for pixels in self._pixels]
        with torch.inference_mode():
            self._logits = [trained.model(images) for images in self._images]
        self._scale = max(logits.abs().max().item() for logits in self._logits)
        if not all(logits.isfinite().all() for logits in self._logits):
            raise UserError(
                f"{self._path}: its logits are not finite: the run diverged; export an earlier one"
            )

    def to(self, answer: Callable[[Tensor], Tensor], *, pixels: bool = False) -> str:
        """How far apart the logits are, in words.

        :param answer: the exported network, (N, 3, size, size) to (N, classes).
        :param pixels: it is shown uint8 pixels, else pictures as the checkpoint's network takes them.
        :raises RuntimeError: they differ by more than rounding.
        """
        apart = []
        for shown, expected in zip(self._pixels if pixels else self._images, self._logits, strict=True):
            found = answer(shown)
            assert found.shape == expected.shape, (found.shape, expected.shape)
            apart.append((found - expected).abs().max())
        most = torch.stack(apart).max().item()
        told = f"logits differ by {most:.1e} at most, the largest is {self._scale:.3g}"
        told += f" ({sum(BATCHES)} random pictures)"
        if not most <= ROUNDING * self._scale:
            raise RuntimeError(f"{self._path}: not exported: {told}")
        return told
