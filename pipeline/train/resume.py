"""May this command go on from that checkpoint? Only if it is the same run on the same pictures."""

import math

from pydantic import BaseModel, ValidationError

from pipeline.config import TrainConfig, UserError
from pipeline.train import checkpoint

FREE = (
    "name",
    "runs",
    "engine",
    "deepspeed",
    "data.index",
    "data.loading",
    "data.val",
    "data.test",
    "train.accumulate",
    "train.compile",
    "train.channels_last",
    "train.deterministic",
    "train.device",
    "train.nonfinite_limit",
    "train.time_limit",
    "train.time_margin",
    "train.hang_timeout",
    "checkpoint",
    "monitor",
)
"""Keys that may change when a run goes on: they say how and where it runs, not what it computes."""
FREE_IN_TRAIN = {name.removeprefix("train.") for name in FREE if name.startswith("train.")}


def find(config: TrainConfig, fingerprint: str, tell: bool) -> dict | None:
    """The state to go on from, or none when the run's folder has no checkpoint.

    :param fingerprint: of the training split.
    :param tell: damaged checkpoints that are passed over are told.
    :raises UserError: the folder holds another run, other pictures, or no checkpoint that is whole.
    """
    if checkpoint.latest(config.folder) is None:
        return None
    path, state = checkpoint.find(config.folder, tell=tell)
    if state["pictures"] != fingerprint:
        raise UserError(
            f"data.index: {config.data.index} is not what {path} was trained on; "
            f"give the same pictures, or another name than {config.name}"
        )
    kept = completed(TrainConfig, state["config"])
    for key, (before, now) in differences(kept, config.model_dump()).items():
        raise UserError(
            f"{key}: {now!r}, but {config.folder} was started with {before!r}; "
            f"give {before!r} to go on, or another name to start anew"
        )
    return state


def best(state: dict | None, val: str | None) -> tuple[float, str | None]:
    """The top-1 on the validation split that is to beat, and of which pictures it is.

    :param state: of the checkpoint; none at the start.
    :param val: the validation pictures now; none if there are none, and the best so far stands.
    """
    # A checkpoint from before it was noted is taken to be of the same pictures.
    of = (state or {}).get("best_of") or val
    if state is None or val not in (None, of):
        return -math.inf, val
    return state["best"], of


def completed(schema: type[BaseModel], kept: dict) -> dict:
    """A config that was kept, with the keys that are newer than it, which then did what their defaults do."""
    try:
        return schema.model_validate(kept).model_dump()
    except ValidationError:  # a key of it is no more: it will be named
        return kept


def differences(before: dict, now: dict, prefix: str = "") -> dict[str, tuple]:
    """Dotted keys outside FREE whose values differ, with both values."""
    found = {}
    for key in before.keys() | now.keys():
        name = f"{prefix}{key}"
        if name in FREE:
            continue
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found |= differences(old, new, f"{name}.")
        elif old != new:
            found[name] = (old, new)
    return dict(sorted(found.items()))
