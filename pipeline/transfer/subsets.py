"""Which pictures train and which validate: drawn by class, without replacement, repeatable from the seed.

Every class has a stream of its own, keyed by (seed, use, class), so what is drawn for one class depends on
that class's pictures in their order and on nothing else: moving, adding or removing another class's
pictures leaves it as it was. (Only how many a split takes of it follows from all the classes' sizes.)

Without replacement is worth saying: linusericsson/ssl-transfer drew Caltech-101's 30 a class with it, and its
published training list has 2,416 rows instead of 102 * 30 = 3,060.
"""

import numpy as np

from pipeline.config import UserError

# One number a use, so that the same seed does not draw the same stream for two things.
_FEW_SHOT, _SPLIT, _TIES, _SHOTS = 0, 1, 2, 3


def few_shot(
    labels: np.ndarray, per_class: int, seed: int, classes: int | None = None, *, of_drawn: bool = False
) -> np.ndarray:
    """Rows of exactly `per_class` different pictures of every class, ascending.

    labels: (N,) integers. Returns (classes * per_class,) int64. With the same seed a smaller `per_class`
    draws a subset of a larger one. `of_drawn`: the pictures were themselves drawn by this, perhaps with the
    same seed, whose first words would then decide twice. UserError where a class has fewer pictures; with
    `classes` given, classes without any picture are found too.
    """
    if per_class < 1:
        raise UserError(f"per_class={per_class}: needs at least 1 picture a class")
    chosen, use = [], _SHOTS if of_drawn else _FEW_SHOT
    for name, rows in _by_class(labels, classes):
        if len(rows) < per_class:
            raise UserError(f"class {name} has {len(rows)} pictures, per_class={per_class} needs {per_class}")
        # A prefix of one permutation: growing per_class adds pictures and exchanges none.
        chosen.append(_shuffled(rows, seed, use, name)[:per_class])
    return np.sort(np.concatenate(chosen))


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split into (train_rows, val_rows), both ascending, where `fraction` of the pictures validate.

    labels: (N,) integers. Every row is in exactly one of the two. Each class gives its share to within one
    picture and the total is round(fraction * N) (largest remainders), except that training keeps at least one
    picture of every class; a class too small may have none for validation. UserError for a fraction outside
    0..1, or one that leaves no picture for validation.
    """
    if not 0 < fraction < 1:
        raise UserError(
            f"fraction={fraction}: must lie between 0 and 1, the share of pictures to validate on"
        )
    groups = _by_class(labels, None)
    counts = _shares(np.array([len(rows) for _, rows in groups]), fraction, seed)  # (classes,)
    if counts.sum() == 0:
        raise UserError(f"fraction={fraction} of {labels.size} pictures leaves none for validation")
    val = np.concatenate(
        [
            _shuffled(rows, seed, _SPLIT, name)[:count]
            for (name, rows), count in zip(groups, counts, strict=True)
        ]
    )
    is_train = np.ones(labels.size, dtype=bool)
    is_train[val] = False
    return np.flatnonzero(is_train), np.sort(val)


def _shares(sizes: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """How many pictures each class gives: largest remainders, ties by the seed, not the class's number."""
    exact = fraction * sizes  # (classes,)
    counts = np.floor(exact).astype(np.int64)
    # Rounded, so that 0.1 * 30 = 3.0000000000000004 leaves no remainder.
    remainder = (exact - counts).round(9)
    wanting = round(fraction * int(sizes.sum())) - int(counts.sum())
    shuffled = _shuffled(np.arange(len(sizes)), seed, _TIES, 0)
    order = shuffled[np.argsort(-remainder[shuffled], kind="stable")]
    able = order[counts[order] + 1 < sizes[order]]
    counts[able[: max(wanting, 0)]] += 1
    return counts


def _by_class(labels: np.ndarray, classes: int | None) -> list[tuple[int, np.ndarray]]:
    """[(class, its rows ascending)]: the classes that occur, or with `classes` all of 0..classes-1."""
    assert labels.ndim == 1, f"labels are {labels.shape}, want (N,)"
    assert labels.size > 0, "no picture to draw from"
    assert np.issubdtype(labels.dtype, np.integer), f"labels must be integers, got {labels.dtype}"
    assert labels.min() >= 0, "a label below 0"
    assert classes is None or labels.max() < classes, f"a label beyond {classes} classes"
    names = np.unique(labels) if classes is None else np.arange(classes)
    rows = np.argsort(labels, kind="stable")  # (N,), by class, ascending within one
    starts = np.searchsorted(labels[rows], names[1:])
    return list(zip(names.tolist(), np.split(rows, starts), strict=True))


def _shuffled(rows: np.ndarray, seed: int, use: int, name: int) -> np.ndarray:
    """`rows` in an order that depends on (seed, use, name) and their number only."""
    assert seed >= 0, f"seed {seed} is negative"
    bits = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(use, name)))
    # Sorting raw words rather than Generator.permutation: numpy promises to keep SeedSequence and the raw
    # words as they are, the Generator's methods it does not (NEP 19). Words tie once in 2**64 / n**2.
    return rows[np.argsort(bits.random_raw(len(rows)), kind="stable")]
