"""What a training is given: its config, its ranks and its pictures."""

from dataclasses import dataclass

from torch import nn

from pipeline.config import TrainConfig
from pipeline.data.index import Split
from pipeline.data.loader import Loader
from pipeline.train.engine import precision_dtype
from pipeline.train.evaluate import Evaluation, evaluate
from pipeline.train.ranks import Ranks


@dataclass(frozen=True)
class Job:
    """What one run reads and where it runs."""

    config: TrainConfig
    ranks: Ranks
    train: Split
    val: Split | None = None
    """Watched while training."""
    test: Split | None = None
    """Evaluated once, after the last step."""
    evaluation_batch: int = 256
    """Pictures per forward pass of a rank, without gradients."""

    @property
    def evaluated(self) -> dict[str, str]:
        """Of which pictures the rows of an evaluation are: by split, short."""
        named = {"val": self.val, "test": self.test}
        return {name: split.fingerprint[:12] for name, split in named.items() if split is not None}

    def loader(self, split: Split) -> Loader:
        data, train = self.config.data, self.config.train
        dtype = precision_dtype(train.precision, self.ranks.device)
        form = (self.ranks.device, train.channels_last, dtype)
        return Loader(split, data.pictures, data.loading, *form)

    def evaluate(self, model: nn.Module, split: Split, title: str) -> Evaluation:
        """Loss, top-1 and predictions on a split, in the run's precision."""
        batch = min(self.evaluation_batch, -(-len(split) // self.ranks.world))
        dtype = precision_dtype(self.config.train.precision, self.ranks.device)
        return evaluate(model, self.loader(split), batch, self.ranks, dtype, title)
