"""One downstream task: its pictures; for each seed, which are learned from, chosen on and tested on."""

from dataclasses import dataclass

import numpy as np

from pipeline.config import Dataset, UserError
from pipeline.config.protocol import REST
from pipeline.data.index import Index, Split, open_index
from pipeline.transfer.metrics import METRICS, Metric
from pipeline.transfer.subsets import few_shot, stratified_split


@dataclass(frozen=True)
class Drawn:
    """What one seed does with a task's pictures; all rows ascending.

    :ivar fit: rows of ``learned`` from which is learned while something is chosen. :ivar chosen_on: rows of
        ``learned`` on which it is chosen. :ivar tested: rows of ``pool``.
    """

    fit: np.ndarray
    chosen_on: np.ndarray
    tested: np.ndarray

    @property
    def choosing(self) -> tuple[np.ndarray, np.ndarray]:
        return self.fit, self.chosen_on

    @property
    def rows(self) -> np.ndarray:
        """Both, from which is learned once all is chosen."""
        return np.sort(np.concatenate([self.fit, self.chosen_on]))


@dataclass(frozen=True)
class Task:
    """:ivar learned: the pictures that may be learned from, those to choose on after those to train on.

    :ivar pool: the pictures that are tested on, by some seed; ``learned`` itself where the test is its rest.
    :ivar draws: one a seed.
    """

    dataset: Dataset
    learned: Split
    pool: Split
    draws: list[Drawn]

    @classmethod
    def open(cls, dataset: Dataset, seed: int, key: str) -> "Task":
        """:param key: the dataset's place in the config, for error messages.

        :raises UserError: no index or split, one that is not the protocol's, a class with too few pictures.
        """
        index = open_index(dataset.index, f"{key}.index")
        _check_index(index, dataset, key)
        learned = _split(index, dataset, dataset.train, f"{key}.train")
        published = len(learned)
        if dataset.val is not None:
            learned = learned.plus(_split(index, dataset, dataset.val, f"{key}.val"))
        rest = dataset.test == REST
        pool = learned if rest else _tested(_split(index, dataset, dataset.test, f"{key}.test"), dataset, key)
        seeds = range(seed, seed + dataset.seeds)
        try:
            about = dataset.model_copy(update={"classes": len(index.classes)})
            draws = [draw(about, learned.labels, published, len(pool), each) for each in seeds]
        except UserError as error:
            raise UserError(f"{key}.{error}") from None
        return cls(dataset, learned, pool, draws)

    @property
    def metric(self) -> Metric:
        return METRICS[self.dataset.metric]

    @property
    def multilabel(self) -> bool:
        return self.learned.multilabel

    @property
    def fixed(self) -> bool:
        """All seeds learn, choose and test alike: what has no random start comes out the same."""
        return self.dataset.val is not None and self.dataset.per_class is None

    def training(self, number: int) -> Split:
        """What is learned from once all is chosen, for the task's seed ``number``."""
        return self.part(self.draws[number].rows)

    def part(self, rows: np.ndarray) -> Split:
        """Some of ``learned``, under the labels that are learned."""
        split = self.learned.take(rows)
        return split.relabelled(self.labels(split)) if self.multilabel else split

    def test(self, number: int) -> Split:
        tested = self.draws[number].tested
        return self.pool if len(tested) == len(self.pool) else self.pool.take(tested)

    def labels(self, split: Split) -> np.ndarray:
        """(N,) int64 classes; or (N, C) int8 of 1 shown, -1 not shown and 0 takes no part."""
        if not self.multilabel:
            return split.labels.astype(np.int64)
        hard = -1 if self.dataset.difficult == "negative" else 0
        return np.where(split.labels == 0, np.int8(hard), split.labels)

    @property
    def about(self) -> str:
        """The protocol in words, for the report."""
        dataset, numbers = self.dataset, self.draws[0]
        named = [dataset.protocol or "", f"({dataset.follows})" if dataset.follows else ""]
        count = "all" if dataset.per_class is None else f"{dataset.per_class}"
        drawn = (
            "training pictures" if dataset.per_class is None else "training pictures a class, drawn by seed"
        )
        chosen = {"loss": "cross-entropy", "metric": dataset.metric}.get(dataset.choose_by, dataset.choose_by)
        share = f"{len(numbers.chosen_on) / len(numbers.rows):.0%}"
        where = f"the split {dataset.val}" if dataset.val else f"{share} of them"
        words = (
            f"{count} {drawn}; the probe's λ chosen by {chosen} on {where} and refitted on all; "
            f"{len(numbers.tested):,} test pictures"
        )
        if dataset.test_per_class is not None:
            words += f", {dataset.test_per_class} a class of the split {dataset.test}"
        return ": ".join([*filter(None, [" ".join(filter(None, named))]), words])


def draw(dataset: Dataset, labels: np.ndarray, published: int, pool: int, seed: int) -> Drawn:
    """One seed's draw.

    :param labels: of all that may be learned from: of the ``published`` training pictures, then of ``val``'s.
    :param pool: number of pictures that may be tested on.
    :raises UserError: a class has too few pictures, or none is left to choose on; it begins with the key.
    """
    trained, tested = np.arange(published), np.arange(pool)
    if dataset.per_class is not None:
        try:
            trained = few_shot(labels[:published], dataset.per_class, seed, dataset.classes)
        except UserError as error:
            raise UserError(f"per_class: {error}") from None
    if dataset.test == REST:
        tested = np.setdiff1d(tested, trained)
    if dataset.val is not None:
        return Drawn(trained, np.arange(published, len(labels)), tested)
    amount = dataset.validation
    if amount >= len(trained):
        raise UserError(
            f"validation: {amount:g} of {len(trained)} training pictures leave none to learn from"
        )
    try:
        fraction = amount if amount < 1 else amount / len(trained)
        fit, chosen_on = stratified_split(labels[trained], fraction, seed)
    except UserError as error:
        raise UserError(f"validation: {error}") from None
    return Drawn(trained[fit], trained[chosen_on], tested)


def _tested(split: Split, dataset: Dataset, key: str) -> Split:
    """What of a test split is tested on; the seed of the draw is nobody's, for all are tested alike."""
    if dataset.test_per_class is None:
        return split
    try:
        return split.take(few_shot(split.labels, dataset.test_per_class, 0, len(split.classes)))
    except UserError as error:
        raise UserError(f"{key}.test_per_class: {error}") from None


def _check_index(index: Index, dataset: Dataset, key: str) -> None:
    """:raises UserError: the index is not of the protocol's pictures, or not of its classes."""
    name = dataset.protocol or "the config"
    if dataset.source not in (None, index.source):
        raise UserError(
            f"{key}.index: {dataset.index} was made from {index.source}, protocol {name} is of "
            f"{dataset.source}; give that one's index, or another protocol"
        )
    if dataset.classes not in (None, len(index.classes)):
        raise UserError(
            f"{key}.index: {dataset.index} has {len(index.classes)} classes, protocol {name} has "
            f"{dataset.classes}; give the index of all of them, or another protocol"
        )


def _split(index: Index, dataset: Dataset, name: str, key: str) -> Split:
    several = METRICS[dataset.metric].multilabel
    split = index.split(name, key, multilabel=True)
    if split.multilabel != several:
        has, wants = ("one", "several labels") if several else ("several", "one label")
        raise UserError(
            f"{key.rpartition('.')[0]}.metric: {dataset.metric} wants {wants} a picture, "
            f"{dataset.index} has {has}"
        )
    if "+" in name:
        # By path: what is drawn from them does not depend on how they had been divided.
        split = split.take(np.argsort([split.path(row) for row in range(len(split))], kind="stable"))
    return split
