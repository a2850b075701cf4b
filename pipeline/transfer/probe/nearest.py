"""k nearest neighbours among the training pictures' features: a classifier with nothing to fit."""

import numpy as np
import torch
from torch.nn.functional import normalize

_PRODUCTS = 50_000_000
"""Similarities held at once."""


def neighbours(
    train: np.ndarray,
    targets: np.ndarray,
    test: np.ndarray,
    *,
    classes: int,
    k: int = 20,
    temperature: float | None = 0.07,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Shares of the votes of the k nearest by cosine, (N, classes) float32; the greatest is the answer.

    Each vote weighs exp(cosine / temperature), as in DINO (Caron et al. 2021, arXiv 2104.14294, App. F.1,
    after Wu et al. 2018, arXiv 1805.01978; k = 20 and 0.07 are its code's), or 1 with no temperature; then a
    tie goes to the lower class.

    train: (M, D), test: (N, D) floats. targets: (M,) integers, or (M, classes) of 1, 0 and -1, of which 1 is
    a vote for its class. With fewer than k training pictures all of them vote.
    """
    assert len(train) == len(targets), f"{len(targets)} targets for {len(train)} pictures"
    assert k >= 1, f"k={k}"
    known = normalize(_tensor(train, device), dim=1)  # (M, D)
    given = torch.as_tensor(np.asarray(targets), device=device)
    votes = (
        torch.nn.functional.one_hot(given.long(), classes) if given.ndim == 1 else (given > 0)
    ).float()  # (M, classes)
    out = np.empty((len(test), classes), np.float32)
    piece = max(1, _PRODUCTS // len(train))
    for start in range(0, len(test), piece):
        asked = normalize(_tensor(test[start : start + piece], device), dim=1)
        near, rows = (asked @ known.T).topk(min(k, len(known)), dim=1)  # (b, k)
        # Less the greatest: exp(1 / temperature) may be more than float32 holds.
        weight = torch.ones_like(near) if temperature is None else ((near - near[:, :1]) / temperature).exp()
        weight = weight / weight.sum(1, keepdim=True)  # pictures are ranked by them where labels are several
        out[start : start + piece] = torch.einsum("bk,bkc->bc", weight, votes[rows]).cpu().numpy()
    return out


def _tensor(features: np.ndarray, device: str | torch.device) -> torch.Tensor:
    return torch.from_numpy(np.array(features, np.float32)).to(device)  # a copy: mapped files are read-only
