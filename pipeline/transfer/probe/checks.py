"""What a probe can be fitted to."""

import numpy as np

from pipeline.config import UserError


def check(features: np.ndarray, targets: np.ndarray, classes: int) -> None:
    """(N, D) finite features; targets (N,) integers in 0..classes-1, or (N, classes) of 1, 0 and -1.

    :raises UserError: features are not finite, a label is out of range, or there is no picture.
    """
    assert features.ndim == 2, f"features are {features.shape}, want (N, D)"
    assert np.issubdtype(targets.dtype, np.integer), f"labels must be integers, got {targets.dtype}"
    shape = (len(features),) if targets.ndim == 1 else (len(features), classes)
    assert targets.shape == shape, f"{targets.shape} targets for {len(features)} pictures"
    if not targets.size:
        raise UserError("the probe has no training picture")
    low, high = (0, classes - 1) if targets.ndim == 1 else (-1, 1)
    if targets.min() < low or targets.max() > high:
        wrong = targets[(targets < low) | (targets > high)].flat[0]
        raise UserError(f"label {wrong} is outside {low}..{high}")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise UserError(
            f"the features of row {np.flatnonzero(~finite)[0]} are not finite: is the checkpoint broken?"
        )


def check_classes(targets: np.ndarray, classes: int) -> None:
    """:raises UserError: a class without a picture, without one that lacks it, or no second class."""
    if targets.ndim == 2:
        for value, words in ((1, "no training picture"), (-1, "no training picture without it")):
            missing = np.flatnonzero(~(targets == value).any(axis=0))
            if missing.size:
                raise UserError(f"class {missing[0]} has {words}; the probe needs one for each of {classes}")
        return
    if classes < 2:
        raise UserError(f"classes={classes}: a probe needs at least 2")
    missing = np.flatnonzero(np.bincount(targets, minlength=classes) == 0)
    if missing.size:
        raise UserError(
            f"class {missing[0]} has no training picture; the probe needs one of each of {classes}"
        )
