"""How a downstream dataset is split, shown and scored: protocols as data, one YAML a dataset.

A file ``caltech101.yaml`` holds one protocol, and under ``variants`` others that change some of its keys::

    name: caltech101-102        # what results call it
    classes: 102
    ...
    variants:
      101: {classes: 101}       # caltech101-101

It lies beside the config that names it, or in ``configs/transfer``.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.errors import UserError
from pipeline.config.load import parse, read_yaml
from pipeline.config.pictures import Pictures
from pipeline.config.section import Positive, Section

SHIPPED = Path(__file__).parents[2] / "configs" / "transfer"
REST = "rest"
"""As a test split: the training split's pictures that were not drawn."""
MULTILABEL = ("map_11point", "map_all_points")
"""Metrics of pictures with several labels."""


class Resize(Section):
    """From a picture to the network's input, in evaluation."""

    short_side: Positive
    """Pixels to which the shorter side is brought."""
    crop: Positive
    """Side of the square that is cut from the centre, pixels."""
    interpolation: Literal["bilinear", "bicubic"]
    """Resampling, antialiased as Pillow's."""

    @model_validator(mode="after")
    def _ordered(self):
        if self.short_side < self.crop:
            raise ValueError(
                f"short_side: {self.short_side} is less than crop {self.crop}; give at least that"
            )
        return self

    def of(self, pictures: Pictures) -> Pictures:
        """The config's pictures, evaluated as here."""
        how = {"eval_resize": self.short_side, "eval_size": self.crop, "interpolation": self.interpolation}
        return pictures.model_copy(update=how)


class Protocol(Section):
    """Everything that must be said beside a figure for it to be compared with another."""

    follows: str | None = None
    """The paper or code that it follows, and where it departs from it."""
    source: str | None = None
    """What the index must have been made from; none = anything."""
    classes: Positive | None = None
    """Classes that the index must have; none = any number."""
    train: str = "train"
    """Split to learn from."""
    val: str | None = None
    """Published split on which everything is chosen; it is learned from once that is done."""
    test: str = "test"
    """Split that is tested on once; ``rest`` = the pictures of ``train`` that ``per_class`` leaves."""
    per_class: Positive | None = None
    """Training pictures of each class, drawn by seed without replacement; none = all."""
    validation: Annotated[float, Field(gt=0)] | None = None
    """Where no ``val`` was published: share (below 1) or number of the training pictures, carved by seed."""
    choose_by: Literal["top1", "loss", "metric"] = "top1"
    """What is compared on validation: top-1, cross-entropy where pictures are few, or ``metric``."""
    metric: Literal["top1", "mean_per_class", "map_11point", "map_all_points"] = "top1"
    """Of the test: share right; its mean over classes; mean average precision at VOC 2007's 11 points of
    recall, or over all of them as from VOC 2010 on."""
    difficult: Literal["ignored", "negative"] | None = None
    """Of several labels a picture: what one that is hard to tell counts as, in training and test."""
    test_per_class: Positive | None = None
    """Test pictures of each class, the same for all seeds, where all would take too long; none = all."""
    resize: Resize | None = None
    """Of the frozen network's input; none = as ``pictures`` says."""
    resize_trained: Resize | None = None
    """Of the finetuned and the scratch network's input in the test; none = as ``resize``."""
    seeds: Positive = 3
    """Repetitions: each another draw of training pictures, where they are drawn, and another random start."""

    @model_validator(mode="after")
    def _validates(self):
        if (self.val is None) == (self.validation is None):
            raise ValueError(
                "validation: what is chosen needs pictures that are no test: name a published split "
                "(val: val), or else give the share or number to carve (validation: 0.2)"
            )
        if self.validation is not None and self.validation >= 1 and self.validation != int(self.validation):
            raise ValueError(f"validation: {self.validation} is neither a share below 1 nor a whole number")
        return self

    @model_validator(mode="after")
    def _tests_on_what_is_new(self):
        """Selecting on the test pictures must be impossible."""
        learned = {key: set(name.split("+")) for key in ("train", "val") if (name := getattr(self, key))}
        for key, parts in learned.items():
            both = parts & set(self.test.split("+"))
            if both:
                what = {"train": "is also the training split", "val": "is also what is chosen on"}[key]
                raise ValueError(f"test: {min(both)!r} {what}; name another")
        both = learned["train"] & learned.get("val", set())
        if both:
            raise ValueError(f"val: {min(both)!r} is also the training split; name another")
        if self.test == REST and self.per_class is None:
            raise ValueError(f"test: {REST}: needs per_class, the number of pictures that train")
        if self.test == REST and self.val is not None:
            raise ValueError(f"test: {REST}: goes with validation, which is carved from what was drawn")
        if self.test == REST and self.test_per_class is not None:
            raise ValueError(f"test_per_class: test: {REST} is all that was not drawn; leave it out")
        return self

    @model_validator(mode="after")
    def _scores(self):
        several = self.metric in MULTILABEL
        if several != (self.difficult is not None):
            raise ValueError(
                f"difficult: metric {self.metric} {'needs' if several else 'has no use for'} it: it is what "
                "labels that are hard to tell count as, where pictures have several (ignored, negative)"
            )
        if several and self.choose_by == "top1":
            raise ValueError(
                f"choose_by: top1 is of one label a picture; {self.metric} goes with metric or loss"
            )
        drawn = [key for key in ("per_class", "validation", "test_per_class") if getattr(self, key)]
        if several and drawn:
            key = drawn[0]
            raise ValueError(f"{key}: is drawn by class; pictures of several labels need published splits")
        return self


def find(name: str, beside: Path | None, key: str) -> dict[str, Any]:
    """A protocol by name, as the keys of a Dataset; ``protocol`` is the name that results give it.

    :param beside: folder to look in first.
    :raises UserError: there is none of that name, or its file is wrong; the message names ``key``.
    """
    for folder in (*([beside] if beside else []), SHIPPED):
        for file in sorted(folder.glob("*.yaml")):
            found = _held(file) if f"{name}-".startswith(f"{file.stem}-") else {}
            if name in found:
                return {"protocol": found[name][0]} | found[name][1].model_dump()
    known = sorted(each for file in SHIPPED.glob("*.yaml") for each in _held(file))
    near = difflib.get_close_matches(name, known, 1, 0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise UserError(f"{key}: no protocol {name!r}; {hint}")


def _held(file: Path) -> dict[str, tuple[str, Protocol]]:
    """What can be asked of a file, to the protocol's own name and itself; nothing if it holds none."""
    tree = read_yaml(file)
    variants, own = tree.pop("variants", None) or {}, str(tree.pop("name", file.stem))
    if "follows" not in tree:
        return {}
    trees = {own: tree} | {f"{file.stem}-{word}": tree | changes for word, changes in variants.items()}
    found = {name: (name, parse(Protocol, each, f"{file} ({name})")) for name, each in trees.items()}
    return found | {file.stem: found[own]}
