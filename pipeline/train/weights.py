"""A network's weights from a file, whoever wrote it.

- launch.train: a checkpoint, a run's folder, or its ``checkpoints/best``;
- launch.export: safetensors whose metadata tells net, classes and pixels;
- torchvision, timm and others: a ``state_dict``, as ``torch.save`` or safetensors wrote it, alone or under
  the name that training scripts give it, with or without the prefixes of wrappers.

No code of a file is run: ``torch.load`` takes tensors and plain values alone.
"""

from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
import yaml
from torch import Tensor, nn

from pipeline.config import Model, Pictures, UserError, parse
from pipeline.train import checkpoint

RAW = ("state_dict", "model", "model_state_dict")
"""Under which names scripts keep weights: PyTorch's examples and timm, torchvision, tutorials."""
AVERAGES = ("state_dict_ema", "model_ema")
"""The same for their moving average: timm, torchvision."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""Of DataParallel and DDP, torch.compile, Lightning."""
TIMMS_VGG = {
    "pre_logits.fc1.": "classifier.0.",
    "pre_logits.fc2.": "classifier.3.",
    "head.fc.": "classifier.6.",
}
"""timm keeps a VGG's hidden layers as convolutions over the same 7x7 positions, in the same order."""


@dataclass(frozen=True)
class Weights:
    """:ivar file: the file itself, where a folder was named.
    :ivar tensors: by torchvision's names.
    :ivar about: which net they belong to; none where the file does not say.
    :ivar classes: what the head answers for; none where the file does not say.
    :ivar pictures: as the net was shown them; none where the file does not say.
    """

    file: Path
    tensors: dict[str, Tensor]
    about: Model | None = None
    classes: list[str] | None = None
    pictures: Pictures | None = None

    @classmethod
    def read(
        cls, path: str | Path, key: str = "checkpoint", *, ema: bool = False, tell: bool = True
    ) -> "Weights":
        """:param key: of the config, for messages. :param ema: the moving average.
        :param tell: damaged checkpoints of a run's folder that are passed over are told.
        :raises UserError: missing, damaged, without weights, or without a moving average.
        """
        path = Path(path)
        if path.is_dir() or path.name in (checkpoint.LATEST, checkpoint.BEST):
            return _ours(*checkpoint.find(path, key, tell), ema)
        form = _form(path, key)
        if form == "safetensors":
            return _safetensors(path, ema)
        state = checkpoint.whole(path, key) if form == "zip" else checkpoint.unpickled(path)
        if isinstance(state, dict) and "format" in state:
            return _ours(path, checkpoint.checked(path, state), ema)
        return cls(path, _completed(_unwrapped(state, path, ema)))


def weights_of(state: dict, path: str | Path, *, ema: bool) -> dict:
    """A checkpoint's weights, raw or their moving average.

    :raises UserError: the average is asked for, and the run kept none.
    """
    if ema and "ema" not in state:
        raise UserError(f"{path}: holds no moving average; train with train.ema, or use the raw weights")
    return state["ema" if ema else "model"]


def switches(model: Model) -> dict:
    """What ``models.build`` takes besides the name."""
    return model.model_dump(exclude={"name", "checkpoint", "ema"})


def load_weights(model: nn.Module, weights: dict, about: Model, keep_head: bool) -> None:
    """Copies a checkpoint's weights into the model; without ``keep_head`` its head stays as drawn."""
    head = f"{model.head_name}."
    wanted = {key for key in model.state_dict() if keep_head or not key.startswith(head)}
    weights = {key: value for key, value in weights.items() if keep_head or not key.startswith(head)}
    own = model.state_dict()
    wrong = sorted(wanted ^ weights.keys()) or [
        f"{key} {list(value.shape)}" for key, value in weights.items() if value.shape != own[key].shape
    ]
    if wrong:
        raise UserError(f"model.checkpoint: {about.checkpoint} does not hold a {about.name}: {wrong[0]}")
    model.load_state_dict(weights, strict=False)


def _ours(file: Path, state: dict, ema: bool) -> Weights:
    told = state["config"]
    about = parse(Model, told["model"], f"{file}: model")
    pictures = parse(Pictures, told["data"]["pictures"], f"{file}: data.pictures")
    return Weights(file, weights_of(state, file, ema=ema), about, state["classes"], pictures)


def _safetensors(path: Path, ema: bool) -> Weights:
    try:
        with safetensors.safe_open(path, "pt") as opened:
            told = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: damaged or cut off ({str(error).splitlines()[0]})") from None
    if ema and told.get("weights") != "ema":
        raise UserError(f"{path}: its weights are no moving average; export with --ema, or leave out ema")
    if "config" not in told:
        return Weights(path, _completed(_unwrapped(tensors, path, ema=False)))
    config = yaml.safe_load(told["config"])
    about = parse(Model, config["model"], f"{path}: model")
    pictures = parse(Pictures, config["data"]["pictures"], f"{path}: data.pictures")
    return Weights(path, tensors, about, yaml.safe_load(told["classes"]), pictures)


def _form(path: Path, key: str) -> str:
    """By the first bytes: "safetensors", "zip" (torch.save today) or "pickle" (torch.save before 1.6)."""
    try:
        with path.open("rb") as opened:
            start = opened.read(10)
    except FileNotFoundError:
        raise UserError(f"{key}: {path}: no such checkpoint") from None
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return "safetensors"  # eight bytes of length, then JSON
    return "pickle" if start.startswith(b"\x80") else "zip"


def _unwrapped(state: object, path: Path, ema: bool) -> dict[str, Tensor]:
    """The tensors by their own names.

    :raises UserError: there are none, or no moving average.
    """
    state = state if isinstance(state, dict) else {}
    inner = [state[name] for name in (AVERAGES if ema else RAW) if isinstance(state.get(name), dict)]
    if ema and not inner:
        raise UserError(f"{path}: holds no moving average ({' or '.join(AVERAGES)}); leave out ema")
    state = inner[0] if inner else state
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    tensors.pop("n_averaged", None)  # of torch's AveragedModel
    if not tensors:
        raise UserError(f"{path}: holds no weights: neither a state_dict, nor one as {', '.join(RAW)}")
    while prefix := next((each for each in PREFIXES if all(name.startswith(each) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    if "pre_logits.fc1.weight" in tensors:
        for theirs, ours in TIMMS_VGG.items():
            for name in [name for name in tensors if name.startswith(theirs)]:
                value = tensors.pop(name)
                tensors[name.replace(theirs, ours)] = value.flatten(1) if value.ndim == 4 else value
    return tensors


def _completed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Batch norms of before PyTorch 0.4.1, as in torchvision's oldest files, did not count their batches."""
    norms = [name.removesuffix("running_mean") for name in tensors if name.endswith("running_mean")]
    counts = {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}
    return tensors | {name: count for name, count in counts.items() if name not in tensors}
