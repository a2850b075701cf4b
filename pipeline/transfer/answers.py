"""A mode's answers to the test pictures, kept in a file each, so that nothing is computed or tested twice."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config import Model, Optimizer, Pictures, Train, UserError
from pipeline.files import write_whole
from pipeline.train.resume import FREE_IN_TRAIN, completed, differences

HASHED = {"checkpoint_sha256": "weights", "train": "training pictures", "test": "test pictures"}
"""Keys of an identity that are told in words: their values are hashes."""


@dataclass(frozen=True)
class Answers:
    """:ivar answers: (N,) int64 predictions, or (N, C) float32 scores where there may be several labels.

    :ivar labels: of the test pictures, (N,), or (N, C) of 1 shown, -1 not shown and 0 that takes no part.
    :ivar rows: (N,) of the dataset's pool of test pictures; seeds may test on different ones of it.
    :ivar chosen: what was chosen without the test pictures. :ivar identity: everything that decides these.
    :ivar confidence: (N,) float32, the softmax of the prediction; none where there are scores, and in files
        of earlier versions.
    """

    answers: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    chosen: dict
    identity: dict
    confidence: np.ndarray | None = None

    @property
    def top(self) -> np.ndarray:
        """(N,) int64: the prediction, or the class of the highest score."""
        return self.answers if self.answers.ndim == 1 else self.answers.argmax(axis=1)

    def keep(self, file: Path) -> None:
        whole = io.BytesIO()
        words = {key: np.array(json.dumps(getattr(self, key))) for key in ("chosen", "identity")}
        if self.confidence is not None:
            words["confidence"] = self.confidence
        np.savez_compressed(whole, answers=self.answers, labels=self.labels, rows=self.rows, **words)
        write_whole(file, whole.getvalue())

    @classmethod
    def read(cls, file: Path) -> "Answers":
        with np.load(file, allow_pickle=False) as found:
            words = [json.loads(str(found[key])) for key in ("chosen", "identity")]
            sure = found.get("confidence", None)
            return cls(found["answers"], found["labels"], found["rows"], *words, sure)

    @staticmethod
    def known(file: Path, identity: dict) -> bool:
        """Whether just these answers were kept before.

        :raises UserError: the file holds answers to another question: its key and both values.
        """
        if not file.exists():
            return False
        with np.load(file, allow_pickle=False) as found:
            if "labels" not in found:
                return False  # of an earlier version
            before = json.loads(str(found["identity"]))
        complete(before)
        for key, (old, new) in differences(before, identity).items():
            # A training has a folder beside its answers, which would be gone on with.
            folders = [file.with_suffix(""), *sorted(file.parent.glob(f"{file.stem}-*/"))]
            made = " and ".join(map(str, [file, *filter(Path.is_dir, folders)]))
            if key in HASHED:
                what = HASHED[key]
                raise UserError(
                    f"{key}: {file} was made with other {what}; give those, another name, or remove {made}"
                )
            raise UserError(
                f"{key}: {new!r}, but {file} was made with {old!r}; "
                f"give {old!r}, another name, or remove {made}"
            )
        return True


def complete(identity: dict) -> None:
    """Brings what an earlier version kept to what this one keeps, in place."""
    sections = [(identity, "pictures", Pictures), (identity, "model", Model), (identity, "tried", Optimizer)]
    for mode in ("finetuned", "scratch"):
        sections += [(identity.get(mode, {}), "optim", Optimizer), (identity.get(mode, {}), "train", Train)]
    for place, key, schema in sections:
        if key in place:
            place[key] = completed(schema, place[key])
            if schema is Train:
                place[key] = {name: value for name, value in place[key].items() if name not in FREE_IN_TRAIN}
