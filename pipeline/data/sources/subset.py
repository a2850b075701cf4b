"""Parts of a source: some of its classes, or a validation split carved out of its training pictures."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.config import UserError

from .source import Source, nearest


def select_classes(source: Source, names: Sequence[str]) -> Source:
    """Only the pictures of these classes, in their old order; label i becomes that of ``names[i]``.

    :raises UserError: an unknown class, a class named twice, or none.
    """
    _one_label(source, "--classes")
    for name, times in Counter(names).items():
        if name not in source.classes:
            raise UserError(f"{source.name}: no class {name!r}; {nearest(name, source.classes)}")
        if times > 1:
            raise UserError(f"{source.name}: class {name!r} is named {times} times; once is enough")
    if not names:
        raise UserError(f"{source.name}: no class is named; {nearest('', source.classes)}")
    new_label = np.full(len(source.classes), -1, np.int64)
    for label, name in enumerate(names):
        new_label[source.classes.index(name)] = label
    splits = {}
    for split, pictures in source.splits.items():
        labels = new_label[pictures.labels]
        rows = np.flatnonzero(labels >= 0)
        splits[split] = pictures.take(rows, labels[rows])
    return replace(source, classes=list(names), splits=splits)


def carve(source: Source, amount: float | int, seed: int, name: str = "val", from_: str = "train") -> Source:
    """Moves ``amount`` of every class from split ``from_`` into a new split; both keep their order.

    Which pictures go is a function of seed, class name and the picture's place within its class: carving
    and ``select_classes`` may come in either order.

    :param amount: a fraction below 1 (rounded to whole pictures per class), or a whole number per class.
    :raises UserError: ``source`` has such a split already, has no ``from_``, or a class has too few.
    """
    _one_label(source, "--val")
    if name in source.splits:
        raise UserError(f"{source.name}: has a split {name!r} already; take that one, or another name")
    if from_ not in source.splits:
        raise UserError(f"{source.name}: no split {from_!r}; {nearest(from_, source.splits)}")
    whole = isinstance(amount, int) and not isinstance(amount, bool) and amount >= 1
    if not whole and not (isinstance(amount, float) and 0 < amount < 1):
        raise UserError(f"{name}: {amount!r} is neither a fraction between 0 and 1 nor pictures per class")
    pictures = source.splits[from_]
    goes = np.zeros(len(pictures), bool)
    for label, class_name in enumerate(source.classes):
        rows = np.flatnonzero(pictures.labels == label)
        count = amount if whole else int(amount * len(rows) + 0.5)
        if not 0 < count < len(rows):
            raise UserError(
                f"{source.name}: class {class_name!r} has {len(rows)} pictures in {from_}; "
                f"taking {count} of them for {name} leaves one of the two without"
            )
        goes[rows[_shuffled(len(rows), f"{seed}/{class_name}")[:count]]] = True
    parts = {from_: np.flatnonzero(~goes), name: np.flatnonzero(goes)}
    carved = {split: pictures.take(rows, pictures.labels[rows]) for split, rows in parts.items()}
    order = [split for split in ("train", "val", "test") if split in source.splits | carved]
    order += [split for split in source.splits | carved if split not in order]
    return replace(source, splits={split: (source.splits | carved)[split] for split in order})


def _one_label(source: Source, what: str) -> None:
    if source.multilabel:
        raise UserError(f"{what}: {source.name} has several labels a picture; it cannot be parted by class")


def _shuffled(count: int, key: str) -> np.ndarray:
    """A permutation of 0..count-1 that depends on ``key`` alone, on every machine and numpy version."""
    bits = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "little")
    # numpy promises the raw stream of Philox for ever, that of Generator.permutation it does not (NEP 19).
    return np.argsort(np.random.Philox(key=bits).random_raw(count), kind="stable")
