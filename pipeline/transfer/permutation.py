"""Do two models differ on the same test pictures? A paired permutation test, as in SimCLR (arXiv 2002.05709).

If they did not, either one's answer to a picture could as well be the other's: exchanging the two, picture
by picture, would often give a difference as large as the one seen. A picture is exchanged with the answers of
all seeds; each model's runs are held fixed.

A metric is tested on what each picture adds to it. Mean average precision has no such parts, and scores of
two models, each on its own scale, cannot be exchanged within one ranking: as in SimCLR, VOC is tested on
accuracy, here of the labels of each picture at a probability of one half, hard ones left out.
"""

import numpy as np

from pipeline.transfer.metrics import Metric

DRAWS = 100_000


def parts(metric: Metric, labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(N,): what each picture adds to the metric, or of several labels to their accuracy; they sum to it.

    labels, answers: (N,) classes, or (N, C) targets and logits.
    """
    if metric.multilabel:
        counted = labels != 0  # (N, C)
        right = (answers > 0) == (labels > 0)
        each = (right & counted).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
        return each / len(labels)
    _, places, pictures = np.unique(labels, return_inverse=True, return_counts=True)
    right = (labels == answers).astype(np.float64)
    if metric.name == "mean_per_class":
        return right / pictures[places] / len(pictures)
    assert metric.name == "top1", f"{metric.name} has no parts"
    return right / len(labels)


def exchanged(differences: np.ndarray, seed: int = 0, draws: int = DRAWS) -> float:
    """Two-sided p of the sum of differences (N,), a picture's a minus b, each with either sign alike.

    Pictures that differ by the same size are as many coins, whose sum is binomial: a draw costs one number
    for each size. p is (1 + draws at least as far from 0) / (1 + draws), which never claims more than it
    should (Phipson & Smyth 2010, doi 10.2202/1544-6115.1585).
    """
    sizes, counts = np.unique(np.abs(differences).round(12), return_counts=True)
    sizes, counts = sizes[sizes > 0], counts[sizes > 0]
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    sums = np.zeros(draws)
    for size, count in zip(sizes, counts, strict=True):
        sums += size * (2 * rng.binomial(count, 0.5, draws) - count)
    # Sums of the same pictures in another order round otherwise.
    far = np.abs(sums) >= abs(differences.sum()) * (1 - 1e-9) - 1e-12
    return float((1 + far.sum()) / (1 + draws))
