"""A study: which runs stand behind a claim of the lectures, as data."""

import copy
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, model_validator

from pipeline.config.errors import UserError
from pipeline.config.load import parse, read_yaml
from pipeline.config.section import Positive, Section
from pipeline.config.training import Data, TrainConfig

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]


class SizedStudy(Section):
    """What all studies have: seeds, and a full size."""

    name: Name
    """The study's folder under ``runs``."""
    runs: str = "runs"
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(min_length=1)
    """All is done once with each; intervals are over them."""
    full: bool = False
    """The full size: with what ``full_size`` changes."""
    full_size: dict[str, Any] = Field({})
    """For a GPU: ``key: value`` with dotted keys of this config; the command line goes before them."""

    @model_validator(mode="after")
    def _seeds_differ(self):
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {self.seeds}: each must be another")
        return self

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name


class StudyConfig(SizedStudy):
    """Members times seeds, each an ordinary run in ``runs/<name>/<member>-seed<k>``."""

    run: dict[str, Any]
    """What all members share: the sections of a training config."""
    members: dict[Name, dict[str, Any]] = Field(min_length=1)
    """By name what each changes, as ``section.key: value``."""

    def trainings(self, origin: str) -> dict[tuple[str, int], TrainConfig]:
        """By member and seed its training's config, seed by seed: a study cut short has whole comparisons.

        :param origin: the config's file, for messages.
        :raises UserError: a member is no training config.
        """
        return {
            (member, seed): self._training(member, changes, seed, f"{origin} ({member})")
            for seed in self.seeds
            for member, changes in self.members.items()
        }

    def _training(self, member: str, changes: dict[str, Any], seed: int, origin: str) -> TrainConfig:
        tree = copy.deepcopy(self.run)
        for key, value in changes.items():
            place: Any = tree
            *sections, last = key.split(".")
            for section in sections:
                place = place.setdefault(section, {}) if isinstance(place, dict) else None
            if not isinstance(place, dict):
                raise UserError(f"{origin}: {key}: is asked of a value, not of a section")
            place[last] = value
        own = {"name": f"{self.name}/{member}-seed{seed}", "runs": self.runs, "seed": seed}
        return parse(TrainConfig, tree | own, origin)


class Looks(Section):
    """What is measured of a net's gradients, and on how much."""

    at: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    """Steps after which a member is looked at, as far as it trains; 0 = as it was drawn."""
    pictures: Positive = 64
    """Of a mini-batch."""
    batches: Annotated[int, Field(ge=2)] = 8
    """Mini-batches whose gradients are compared."""
    linear: Positive = 8
    """Pictures in the batch whose Jacobian's singular values are measured."""
    points: Positive = 5
    """Layers from which that Jacobian is taken to the last one."""
    iterations: Positive = 10
    """Of the power iteration."""
    probes: Positive = 4
    """Random vectors for a typical singular value."""
    lines: Positive = 4
    """Straight lines between two pictures on which the gradient's autocorrelation is taken."""
    places: Annotated[int, Field(ge=4)] = 48
    """Inputs on each such line."""
    redraws: Annotated[int, Field(ge=2)] = 4
    """Times the later layers' weights are drawn anew."""


class GradientStudyConfig(StudyConfig):
    """A study that also looks into its members."""

    look: Looks
    untrained: list[Name] = Field([])
    """Members that are only looked at as they are drawn."""

    @model_validator(mode="after")
    def _untrained_are_members(self):
        for name in self.untrained:
            if name not in self.members:
                raise ValueError(f"untrained: {name!r} is no member; there are {', '.join(self.members)}")
        return self


class PrecomputeConfig(SizedStudy):
    """Features computed once for several tasks, against once for each."""

    checkpoint: str
    """Whose features they are: as in a transfer."""
    data: Data
    """Its ``train`` and ``test`` splits are drawn from."""
    tasks: Annotated[int, Field(ge=2)] = 5
    """Each asks which half of the classes a picture is of; the halves are drawn."""
    train: Annotated[int, Field(ge=20)] = 1000
    """Pictures that a classifier is fitted on, a fifth of them to choose its penalty."""
    test: Positive = 1000
    """Pictures that it is tested on."""
    batch: Positive = 256
    """Pictures of a forward pass."""


def full_words(path: str | Path, words: list[str]) -> list[str]:
    """The overrides that ``full=true`` stands for, in front of the command line's own words.

    :raises UserError: as ``load``.
    """
    tree = read_yaml(Path(path))
    full = tree.get("full", False)
    for word in words:
        if word.startswith("full="):
            with suppress(yaml.YAMLError):  # told by ``load``
                full = yaml.safe_load(word.removeprefix("full="))
    changes = tree.get("full_size")
    if full is not True or not isinstance(changes, dict):
        return words
    told = [
        f"{key}={yaml.safe_dump(value, default_flow_style=True, width=10**6)}"
        for key, value in changes.items()
    ]
    return [*(word.removesuffix("\n").removesuffix("\n...") for word in told), *words]
