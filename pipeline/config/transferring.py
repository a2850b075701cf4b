"""A transfer: its tasks and how each mode is trained."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_serializer, model_validator

from pipeline.config.errors import UserError
from pipeline.config.pictures import Pictures
from pipeline.config.protocol import MULTILABEL, Protocol, find
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


class FrozenRecipe(Section):
    """How the frozen network's features are probed, and analyses of the same features.

    Each figure of an analysis is tested once; what it chooses, it chooses on validation.
    """

    search: Literal["full", "halving"] = "full"
    """The probe's λ: all 45 of the lineage's grid, or its cheaper search, at most 15 (linear_eval.py)."""
    neighbours: list[Positive] = Field([])
    """k nearest neighbours by cosine; the best of these k on validation is tested. None = not asked."""
    shots: list[Positive] = Field([])
    """Training pictures a class, each number by itself, for a probe whose λ is fixed (C = 1)."""
    draws: Positive = 5
    """Repetitions of each of ``shots``, each with other pictures."""
    depths: list[str] = Field([])
    """Stages (stage1, stage2, ...) whose outputs, averaged over positions, get the same probe."""
    resolutions: list[Positive] = Field([])
    """Sides of the evaluation crop, pixels, at which the same probe is asked; the short side scales along."""
    map: Annotated[int, Field(ge=10, le=2000)] | None = None
    """Test pictures on a map of the features (t-SNE) in the report; none = no map."""

    @model_validator(mode="after")
    def _once(self):
        for key in ("neighbours", "shots", "depths", "resolutions"):
            values = getattr(self, key)
            if twice := [value for number, value in enumerate(values) if value in values[:number]]:
                raise ValueError(f"{key}: {twice[0]} stands there twice")
        return self

    @property
    def asked(self) -> list[str]:
        """Keys of the analyses that are wanted."""
        keys = ("neighbours", "shots", "depths", "resolutions", "map")
        return [key for key in keys if getattr(self, key)]


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
    """Mean and std that are not given are those of the checkpoint's training."""
    loading: Loading = Loading()
    batch: Positive = 256
    """Pictures per forward pass of a rank when features are computed or a test set is evaluated."""
    hang_timeout: Annotated[float, Field(gt=0)] = 900.0
    """Seconds without progress after which the job ends, saying which rank is stuck, and where: of the
    trainings too. Where the first rank alone fits or draws, it may take its time as long as it lives."""
    frozen: FrozenRecipe = FrozenRecipe()
    finetuned: Recipe
    scratch: Recipe
    monitor: Monitor = Monitor()

    @model_validator(mode="after")
    def _trained_as_asked(self):
        for mode in ("finetuned", "scratch"):
            if getattr(self, mode).train.ema is not None:
                raise ValueError(f"{mode}.train.ema: what is tested are the weights themselves; leave it out")
        if (one := self.finetuned.train.device) != (other := self.scratch.train.device):
            raise ValueError(
                f"scratch.train.device: {other}, but finetuned.train.device is {one}: one job, one kind"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_given(self, whole):
        """A mean and std that were not given stay so: they are then the checkpoint's."""
        tree = whole(self)
        for key in {"mean", "std"} - self.pictures.model_fields_set:
            tree["pictures"].pop(key)
        return tree

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

    @model_validator(mode="after")
    def _analysed(self):
        asked = self.frozen.asked
        if asked and "frozen" not in self.modes:
            raise ValueError(f"frozen.{asked[0]}: modes leaves frozen out; add it, or leave {asked[0]} out")
        if "shots" in asked and all(dataset.metric in MULTILABEL for dataset in self.datasets):
            raise ValueError(
                "frozen.shots: several labels a picture have no number of pictures a class; leave shots out"
            )
        if "resolutions" in asked and self.pictures.eval_resize is None:
            for dataset in self.datasets:
                if dataset.resize is None:
                    raise ValueError(
                        f"frozen.resolutions: {dataset.name} is shown at its own scale; give "
                        "pictures.eval_resize, the short side that goes with the crop, or leave them out"
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
