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
    elsewhere: list[str] = field(default_factory=list)
    """Names of runs that another command holds: the study is not complete before they are done."""

    def __iter__(self) -> Iterator[tuple[Key, Job]]:
        """:raises UserError: there is no index, or it has no such split."""
        for number, (key, config) in enumerate(self.configs.items(), 1):
            lock = claim(config.folder) if self.ranks.first else None
            try:
                if self.ranks.any(self.ranks.first and lock is None):
                    self.elsewhere.append(config.name)
                    continue
                if self.ranks.first:
                    say(f"run {number} of {len(self.configs)}: {config.name}")
                yield key, Job(config, self.ranks, **splits(config))
            finally:
                if lock:
                    lock.close()
