"""Weights alone, by torchvision's names: as safetensors, or as the state_dict that torchvision loads."""

import io

import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline.config import Model, UserError
from pipeline.export.compare import Comparison
from pipeline.export.trained import Trained
from pipeline.train.weights import switches


def to_safetensors(trained: Trained) -> tuple[bytes, str]:
    """A safetensors file with the facts in its metadata: its content, and what it holds in words."""
    weights = trained.model.state_dict()
    content = safetensors.torch.save(weights, {"format": "pt"} | trained.facts())
    read = safetensors.torch.load(content)
    assert read.keys() == weights.keys()
    assert all(_same_bits(read[name], weight) for name, weight in weights.items())
    return content, f"{len(weights)} tensors, read back to the same bits"


def to_torchvision(trained: Trained) -> tuple[bytes, str]:
    """A state_dict for ``torchvision.models.NAME(num_classes=K)``: its content, and how it was compared.

    :raises UserError: torchvision has no such network.
    """
    theirs = _torchvision(trained.config.model, len(trained.classes))
    weights = trained.model.state_dict()
    _check_shapes(trained.config.model, weights, theirs.state_dict())
    file = io.BytesIO()
    torch.save(weights, file)
    read = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    theirs.load_state_dict(read, strict=True, assign=True)
    with torch.inference_mode():
        told = Comparison(trained, trained.size).to(theirs.eval())
    return file.getvalue(), f"torchvision's {trained.config.model.name} loads it; {told}"


def _torchvision(about: Model, classes: int) -> nn.Module:
    """Theirs, without memory for its weights."""
    from torchvision import models  # takes as long to import as torch itself

    if about.name not in models.list_models(module=models):
        raise UserError(f"--to torchvision: it has no {about.name}; --to safetensors and --to onnx will do")
    with torch.device("meta"):
        return models.get_model(about.name, weights=None, num_classes=classes)


def _check_shapes(about: Model, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """:raises UserError: the config's switches made another network than the one that bears the name."""
    other = ours.keys() ^ theirs.keys() or {key for key in ours if ours[key].shape != theirs[key].shape}
    if other:
        own = Model(name=about.name)
        made = [
            f"model.{key}={value}" for key, value in switches(about).items() if value != getattr(own, key)
        ]
        raise UserError(
            f"--to torchvision: its {about.name} is another network than this one of {', '.join(made)} "
            f"({min(other)}); --to safetensors and --to onnx will do"
        )


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return (a.dtype, a.shape) == (b.dtype, b.shape) and a.numpy().tobytes() == b.numpy().tobytes()
