"""Few training pictures a class: how the answer grows from one to twenty."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from pipeline.config import UserError
from pipeline.transfer.probe.choice import fit
from pipeline.transfer.subsets import few_shot

SHOTS = (1, 5, 10, 20)
LAMBDA = 0.5
"""C = 1: one picture a class leaves none to choose lambda on."""


def few_shots(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    *,
    classes: int,
    seeds: Sequence[int],
    shots: Sequence[int] = SHOTS,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(shots, seed, predictions (N,) int64) for each number of pictures a class and each draw of them.

    Logistic regression on features of length 1 at C = 1, as Tian et al. 2020 (arXiv 2003.11539, section 3):
    all drawn pictures are trained on, none chooses anything. Under one seed the pictures of fewer shots are
    among those of more.

    train: (M, D), test: (N, D); labels: (M,). UserError where a class has too few pictures, or pictures show
    several classes.
    """
    if labels.ndim == 2:
        raise UserError("shots: several labels a picture have no number of pictures a class; leave shots out")
    asked = _unit(test)
    for number in shots:
        for seed in seeds:
            rows = few_shot(labels, number, seed, classes, of_drawn=True)
            found = fit(_unit(train[rows]), labels[rows], LAMBDA, classes, device=device)
            yield number, seed, found.predict(asked)


def _unit(features: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D) float32 of length 1; what is 0 stays so."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32)
