"""A linear classifier on features."""

from dataclasses import dataclass

import numpy as np

# Rows turned into logits at once, so that float64 copies of the features stay small.
_ROWS = 8192


@dataclass(frozen=True)
class Probe:
    """weight: (classes, D), bias: (classes,); float64. With one class a picture both sum to 0."""

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, D) features of any float type -> (N, classes) float64."""
        assert features.ndim == 2, f"features are {features.shape}, want (N, D)"
        out = np.empty((len(features), len(self.bias)))
        for start in range(0, len(features), _ROWS):
            rows = slice(start, start + _ROWS)
            out[rows] = features[rows].astype(np.float64) @ self.weight.T + self.bias
        return out

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(N, D) -> (N,) int64 classes."""
        return self.logits(features).argmax(axis=1)
