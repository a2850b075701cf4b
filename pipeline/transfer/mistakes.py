"""The surest mistakes of each mode, for the report: the pictures, what was said of them and how surely."""

from pathlib import Path

import numpy as np

from pipeline.data.loader import Loader
from pipeline.monitor.samples import keep_pictures
from pipeline.transfer.answers import Answers

MOST = 8
"""Pictures of a mode."""


def surest_mistakes(found: Answers, most: int = MOST) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (K,) in the run's test split, classes said (K,) and confidences (K,) in 0..1, the surest first.

    Of several labels a picture: the class of the highest score among those not shown, where the network
    takes it to be there. Nothing, where a run of an earlier version kept no confidences.
    """
    if found.labels.ndim == 2:
        scores = np.where(found.labels < 0, found.answers, -np.inf)  # (N, C)
        said, sure = scores.argmax(axis=1), 1 / (1 + np.exp(-scores.max(axis=1).astype(np.float64)))
        wrong = sure > 0.5
    elif found.confidence is not None:
        said, sure = found.answers, found.confidence
        wrong = said != found.labels
    else:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    places = np.flatnonzero(wrong)
    places = places[np.argsort(-sure[places], kind="stable")[:most]]
    return places, said[places], sure[places]


def keep_mistakes(file: Path, loader: Loader, runs: dict[str, Answers]) -> None:
    """Writes pictures (K, S, S, 3) uint8, labels, classes, and mode, class said and confidence, (K,) each.

    :param loader: of the test split, all runs' the same. :param runs: one of each mode.
    """
    found = {mode: surest_mistakes(run) for mode, run in runs.items()}
    rows, said, sure = (np.concatenate(parts) for parts in zip(*found.values(), strict=True))
    if not len(rows):
        file.unlink(missing_ok=True)
        return
    modes = np.repeat(list(found), [len(places) for places, *_ in found.values()])
    about = {"modes": modes, "said": said, "confidence": sure.astype(np.float32)}
    keep_pictures(file, loader, rows, about)
