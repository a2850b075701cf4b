"""A transfer: its tasks and how each mode is trained."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.errors import UserError
from pipeline.config.pictures import Pictures
from pipeline.config.protocol import Protocol, find
from pipeline.config.section import NotNegative, Positive, Section
from pipeline.config.training import Loading, Monitor, Optimizer, Train


class Grid(Section):
    """Learning rates and decays that are tried, each with each, on validation (Kornblith et al. 2019)."""

    lr: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)
    """In place of the recipe's ``optim.lr``."""
    decay: list[NotNegative] = Field(min_length=1)
    """Each is divided by the learning rate to give the weight decay, as in the lineage."""


class Recipe(Section):
    """How one mode of transfer trains: the part of a TrainConfig that differs from mode to mode."""

    optim: Optimizer
    train: Train
    grid: Grid | None = None
    """What is chosen on validation, then trained anew on all training pictures; none = ``optim`` as it is."""


class Dataset(Protocol):
    """One downstream task: its pictures, and a protocol, by name or written out here."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    """In results and tables; none = the protocol's."""
    index: str
    """Folder that ``launch.prepare`` wrote."""
    curve: str | None = None
    """Of which it is a point: an entry whose ``per_class`` is a list, [5, 20, all], becomes one for each."""
    protocol: str | None = None
    """Name of a protocol (``pipeline.config.protocol``); none = one's own, of the keys given here."""


class Network(Section):
    """What a checkpoint's file may not say of its network."""

    name: str | None = None
    """A name of the pattern, as of ``model.name`` in training; none = what the file says, or its tensors'
    shapes tell."""


class TransferConfig(Section):
    """Frozen, finetuned and from scratch: ``torchrun ... -m launch.transfer CONFIG checkpoint=PATH``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$")]
    runs: str = "runs"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    checkpoint: str
    """A checkpoint of launch.train or a run's folder (its latest); weights of launch.export, torchvision or
    timm: ResNets and VGGs as ``state_dict`` or safetensors."""
    model: Network = Network()
    ema: bool = False
    """Evaluate the checkpoint's moving average (``train.ema``) instead of its raw weights."""
    datasets: list[Dataset] = Field(min_length=1)
    modes: list[Literal["frozen", "finetuned", "scratch"]] = Field(["frozen", "finetuned", "scratch"])
    pictures: Pictures = Pictures()
    loading: Loading = Loading()
    batch: Positive = 256
    """Pictures per forward pass of a rank when features are computed or a test set is evaluated."""
    finetuned: Recipe
    scratch: Recipe
    monitor: Monitor = Monitor()

    @model_validator(mode="after")
    def _scratch_spares_nothing(self):
        if self.scratch.optim.backbone_lr_scale is not None:
            raise ValueError(
                f"scratch.optim.backbone_lr_scale: {self.scratch.optim.backbone_lr_scale:g} spares weights "
                "that were learned before; from scratch there are none: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _named_apart(self):
        for number, dataset in enumerate(self.datasets):
            if dataset.name in {other.name for other in self.datasets[:number]}:
                raise ValueError(
                    f"datasets.{number}.name: {dataset.name!r} is another dataset's; give a name"
                )
        return self

    @classmethod
    def completed(cls, tree: dict, path: Path) -> dict:
        """:raises UserError: a dataset names no protocol that there is, or departs from the one it names."""
        datasets = tree.get("datasets")
        if not isinstance(datasets, list):
            return tree
        whole = [_completed(each, path.parent, f"datasets.{i}") for i, each in enumerate(datasets)]
        return tree | {"datasets": [point for each in whole for point in _points(each)]}

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name


def _points(entry: Any) -> list[Any]:
    """One entry for each of the numbers in its ``per_class``, where these are a list."""
    counts = entry.get("per_class") if isinstance(entry, dict) else None
    if not isinstance(counts, list):
        return [entry]
    if "name" not in entry:
        return [entry | {"per_class": None}]  # what is missing is told when it is read
    name = entry["name"]
    points = [{"name": f"{name}-{each}", "per_class": None if each == "all" else each} for each in counts]
    return [entry | {"curve": name} | point for point in points]


def _completed(entry: Any, beside: Path, key: str) -> Any:
    """A dataset's keys with those of the protocol that it names; only its repetitions may differ."""
    name = entry.get("protocol") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        return entry
    # A run's resolved config has all the keys; the protocol's file may since be elsewhere.
    whole = Protocol.model_fields.keys() <= entry.keys()
    try:
        protocol = find(name, beside, f"{key}.protocol")
    except UserError:
        if whole:
            return entry
        raise
    for each, value in protocol.items():
        if each not in ("protocol", "seeds") and entry.get(each, value) != value:
            raise UserError(
                f"{key}.{each}: {entry[each]!r}, but {value!r} in protocol {protocol['protocol']}; "
                "leave it out, or make a variant of the protocol"
            )
    return {"name": name} | protocol | entry | {"protocol": protocol["protocol"]}
