"""Pictures that stand in training and in another split too: a test on them measures memory."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa


def duplicates(splits: dict[str, pa.Table]) -> Iterator[tuple[int, str, int]]:
    """Row of train, other split and its row, for every pair of equal content that is known.

    :param splits: tables with a column ``digest``; of several equal training pictures each is told.
    """
    if "train" not in splits:
        return
    train = splits["train"].column("digest").to_pylist()
    for name, table in splits.items():
        if name == "train":
            continue
        first = {digest: row for row, digest in enumerate(table.column("digest").to_pylist()) if digest}
        for row, digest in enumerate(train):
            if digest in first:
                yield row, name, first[digest]


def without(table: pa.Table, rows: list[int]) -> pa.Table:
    kept = np.ones(table.num_rows, bool)
    kept[rows] = False
    return table.filter(pa.array(kept)).combine_chunks()
