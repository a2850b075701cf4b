"""One downstream task, drawn for one seed: its training pictures, its test pictures, one answer each."""

from dataclasses import dataclass

import numpy as np

from pipeline.config import Dataset, UserError
from pipeline.data.index import Split, open_index
from pipeline.transfer.subsets import few_shot, stratified_split


@dataclass(frozen=True)
class Task:
    """:ivar rows: (S, M) int64: per seed the rows of ``train`` that may be learned from."""

    dataset: Dataset
    train: Split
    test: Split
    rows: list[np.ndarray]

    @classmethod
    def open(cls, dataset: Dataset, seed: int, key: str) -> "Task":
        """:param key: the dataset's place in the config, for error messages.

        :raises UserError: no index or split, a class with too few pictures, or test pictures in training.
        """
        index = open_index(dataset.index, f"{key}.index")
        train, test = index.split(dataset.train, f"{key}.train"), index.split(dataset.test, f"{key}.test")
        if dataset.train == dataset.test:
            raise UserError(f"{key}.test: {dataset.test!r} is also the training split; name another")
        if dataset.per_class is None:
            rows = [np.arange(len(train))] * dataset.seeds
        else:
            classes = len(train.classes)
            draw = range(seed, seed + dataset.seeds)
            rows = [few_shot(train.labels, dataset.per_class, each, classes) for each in draw]
        for number, drawn in enumerate(rows):
            try:
                stratified_split(train.labels[drawn], dataset.validation, seed + number)
            except UserError as error:
                raise UserError(f"{key}.validation: {error}") from None
        return cls(dataset, train, test, rows)

    @property
    def protocol(self) -> str:
        """In words, for the report."""
        count = self.dataset.per_class
        drawn = (
            "all training pictures" if count is None else f"{count} training pictures a class, drawn by seed"
        )
        return (
            f"{drawn}; the probe's λ chosen by {self.dataset.choose_by.replace('loss', 'cross-entropy')} "
            f"on {self.dataset.validation:.0%} of them and refitted on all; "
            f"{len(self.test):,} test pictures"
        )
