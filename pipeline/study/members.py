"""The runs of a study, one after another: killed, the same command goes on; two commands share the runs."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.claim import claim
from pipeline.config import TrainConfig
from pipeline.progress import say
from pipeline.train import Job
from pipeline.train.ranks import Ranks
from pipeline.train.run import splits

Key = tuple[str, int]
"""A member's name and a seed."""


@dataclass
class Members:
    """The jobs of all runs, each held against other commands while it is worked on."""

    configs: dict[Key, TrainConfig]
    ranks: Ranks
    elsewhere: list[Key] = field(default_factory=list)
    """Runs that another command holds: the study is not complete before they are done."""

    def __iter__(self) -> Iterator[tuple[Key, Job]]:
        """Every run once; those that another command held are asked for a second time at the end.

        :raises UserError: there is no index, or it has no such split.
        """
        yield from self._pass(list(self.configs))
        if self.elsewhere:
            yield from self._pass(self.elsewhere)

    def _pass(self, keys: list[Key]) -> Iterator[tuple[Key, Job]]:
        self.elsewhere = []
        for number, key in enumerate(keys, 1):
            config = self.configs[key]
            lock = claim(config.folder) if self.ranks.first else None
            try:
                if self.ranks.any(self.ranks.first and lock is None):
                    self.elsewhere.append(key)
                    continue
                if self.ranks.first:
                    say(f"run {number} of {len(keys)}: {config.name}")
                yield key, Job(config, self.ranks, **splits(config))
            finally:
                if lock:
                    lock.close()
