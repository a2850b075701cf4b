"""What training minimises, and when an answer is right; for one label a picture, and for several."""

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.mix import Mix


def losses(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """(b,) each picture's own: cross-entropy, or of several labels the mean of their binary cross-entropies.

    :param logits: (b, C).
    :param labels: (b,) int64; or (b, C) of 1 shown, -1 not shown, and 0, which takes no part.
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    counted = (labels != 0).to(logits.dtype)  # (b, C)
    wanted = (labels > 0).to(logits.dtype) * (1 - smoothing) + smoothing / 2
    each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    # A mean per picture, not over all labels: so the ranks' means average to that of the global batch.
    return (each * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def cross_entropy(logits: Tensor, labels: Tensor, mix: Mix | None, smoothing: float) -> Tensor:
    """() the batch's mean of ``losses``; each picture's labels and its partner's count by their shares."""
    if mix is None and labels.ndim == 1:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    own = losses(logits, labels, smoothing)
    if mix is None:
        return own.mean()
    return (mix.share * own + (1 - mix.share) * losses(logits, mix.other, smoothing)).mean()


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """(b,) bool: the top answer is the picture's label, or one of those it shows."""
    top = logits.argmax(dim=1)
    return top == labels if labels.ndim == 1 else torch.take_along_dim(labels, top[:, None], 1)[:, 0] > 0
