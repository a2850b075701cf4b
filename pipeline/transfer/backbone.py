"""The network that is transferred: from a checkpoint, frozen for features."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pipeline.config import Model, Pictures, UserError
from pipeline.files import sha256
from pipeline.models import ConvNet, build
from pipeline.models.recognise import described, difference, recognise
from pipeline.progress import say
from pipeline.train.weights import Weights, load_weights, switches

LAST = "embed"
"""The depth in front of the head."""


class Frozen(nn.Module):
    """Features before the classifier. Nothing in it moves: neither weights nor batch-norm statistics.

    ``requires_grad=False`` alone does not stop running statistics, and a parent's ``train()`` would switch
    them on again; here ``train()`` has no effect.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "Frozen":
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) -> (N, D)."""
        return self.model.embed(x)

    @property
    def depths(self) -> list[str]:
        """Where features can be taken from: stage1 and on, ``LAST``."""
        return [*(f"stage{number}" for number in range(1, len(self.model.stages) + 1)), LAST]

    def at(self, x: torch.Tensor, depths: Sequence[str]) -> list[torch.Tensor]:
        """(N, 3, S, S) -> (N, D) for each of ``depths``, from one forward pass."""
        found = dict(zip(self.depths, self.model.depths(x), strict=True))
        return [found[depth] for depth in depths]


@dataclass(frozen=True)
class Backbone:
    """A checkpoint's network.

    :ivar path: of the checkpoint file.
    :ivar digest: sha256 of that file; for its moving average, and for a network that the file does not name
        (its tensors may fit several), of that and a word more.
    :ivar classes: of its own head; 0 if it came without one.
    :ivar pictures: as it was shown them; none where the file does not say.
    :ivar names: of the classes that its head answers for; none where the file does not say.
    """

    path: Path
    digest: str
    about: Model
    weights: dict
    classes: int
    pictures: Pictures | None = None
    names: list[str] | None = None

    @classmethod
    def read(cls, path: str, *, ema: bool = False, tell: bool = True, name: str | None = None) -> "Backbone":
        """:param ema: the moving average of the weights. :param tell: damaged checkpoints are told.
        :param name: of the net, where its tensors leave a choice; none = recognised.
        :raises UserError: no such checkpoint, a broken one, or one of another network.
        """
        found = Weights.read(path, ema=ema, tell=tell)
        about = (found.about or Model(name=_name(found, name))).model_copy(update={"ema": ema})
        if name not in (None, about.name):
            raise UserError(f"model.name={name}: {found.file} holds a {about.name}")
        digest = sha256(found.file)
        if ema:
            digest = hashlib.sha256(f"{digest} ema".encode()).hexdigest()
        if found.about is None:
            digest = hashlib.sha256(f"{digest} {about.name}".encode()).hexdigest()
        with torch.device("meta"):
            head = f"{build(about.name, 1, **switches(about)).head_name}.weight"
        classes = len(found.tensors[head]) if head in found.tensors else 0
        return cls(found.file, digest, about, found.tensors, classes, found.pictures, found.classes)

    @property
    def stages(self) -> list[str]:
        """Depths from which features can be taken besides what the head sees."""
        return Frozen(self._bare).depths[:-1]

    @property
    def stride(self) -> int:
        """Pixels of a picture's side to one position of its last stage."""
        return self._bare.pattern.stride

    @property
    def smallest(self) -> int:
        """Side of the smallest picture that it takes, pixels."""
        return self._bare.pattern.smallest

    @property
    def _bare(self) -> ConvNet:
        """The network without numbers."""
        with torch.device("meta"):
            return build(self.about.name, 1, **switches(self.about))

    def frozen(self, device: torch.device) -> Frozen:
        model = build(self.about.name, self.classes or 1, **switches(self.about))
        about = self.about.model_copy(update={"checkpoint": str(self.path)})
        load_weights(model, self.weights, about, keep_head=self.classes > 0)
        return Frozen(model.to(device, memory_format=torch.channels_last))

    def normalised(self, pictures: Pictures, tell: bool = False) -> Pictures:
        """The config's pictures; mean and std that it does not give are those of the checkpoint's training.

        A file that does not tell them leaves the config's own, by default ImageNet's.

        :param tell: it is told where the config's are others than the checkpoint's.
        """
        if self.pictures is None:
            return pictures
        own = {key: getattr(self.pictures, key) for key in ("mean", "std")}
        given = {key: getattr(pictures, key) for key in own if key in pictures.model_fields_set}
        for key, value in given.items():
            if tell and value != own[key]:
                say(f"pictures.{key}: {value} as the config says; {self.path} was trained with {own[key]}")
        return pictures.model_copy(update=own | given)


def _name(found: Weights, wanted: str | None) -> str:
    """Of a net that its file does not name.

    :raises UserError: none of ours, not the one that is wanted, or one of several that only the user can
    tell.
    """
    shapes = {key: tuple(value.shape) for key, value in found.tensors.items()}
    if wanted:
        if wrong := difference(wanted, shapes):
            raise UserError(f"model.name={wanted}: {found.file} does not hold one: {wrong}")
        return wanted
    names = recognise(shapes)
    if not names:
        raise UserError(f"checkpoint: {found.file}: none of our networks: {described(shapes)}")
    if len(names) > 1:
        choice = " or ".join(names)
        raise UserError(f"checkpoint: {found.file}: its tensors fit {choice}; say which with model.name")
    return names[0]
