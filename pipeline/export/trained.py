"""The network that is exported, and what must be known to use it."""

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline.config import TrainConfig, parse
from pipeline.models import ConvNet, build
from pipeline.train import checkpoint
from pipeline.train.weights import load_weights, switches, weights_of

# Where the pictures and the run lay is nobody's business who gets the weights.
_PATHS = {"runs": True, "data": {"index"}, "model": {"checkpoint"}}


@dataclass(frozen=True)
class Trained:
    """A checkpoint's network, on the CPU, in float32, for evaluation.

    :ivar path: of the checkpoint file. :ivar ema: whether the weights are the run's moving average.
    """

    path: Path
    config: TrainConfig
    classes: list[str]
    step: int
    ema: bool
    model: ConvNet

    @classmethod
    def read(cls, path: str | Path, *, ema: bool) -> "Trained":
        """:raises UserError: no such checkpoint, a broken one, or one without a moving average."""
        file, state = checkpoint.find(path)
        config = parse(TrainConfig, state["config"], str(file))
        about = config.model.model_copy(update={"checkpoint": str(file)})  # named if its weights do not fit
        model = build(about.name, len(state["classes"]), **switches(about))
        load_weights(model, weights_of(state, file, ema=ema), about, keep_head=True)
        return cls(file, config, state["classes"], state["step"], ema, model.eval().requires_grad_(False))

    @property
    def size(self) -> int:
        """Side of the pictures that the network was evaluated on."""
        return self.config.data.pictures.evaluation_size

    @property
    def title(self) -> str:
        return f"{self.config.model.name}_step_{self.step:08d}{'_ema' if self.ema else ''}"

    def facts(self, size: int | None = None) -> dict[str, str]:
        """Words for the file's metadata, strings by name.

        :param size: side of the pictures that the file takes, the short side scaled along; none = the run's.

        ``pictures`` and ``classes`` are JSON: resize the short side (antialiased; null = not), crop the
        centre, scale to 0..1, subtract mean, divide by std; logit i answers for class i. ``config`` is YAML,
        the run's config without its paths.
        """
        pictures, size = self.config.data.pictures, size or self.size
        resize = pictures.eval_resize
        shown = {
            "resize": resize and round(resize * size / self.size),
            "size": size,
            "interpolation": pictures.interpolation,
            "mean": pictures.mean,
            "std": pictures.std,
        }
        config = self.config.model_dump(exclude=_PATHS)
        return {
            "model": self.config.model.name,
            "weights": "ema" if self.ema else "raw",
            "step": str(self.step),
            "classes": json.dumps(self.classes),
            "pictures": json.dumps(shown),
            "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        }
