"""Members are trained, then looked at: as drawn and at checkpoints of the way, each look kept in a file."""

import json
from pathlib import Path

import numpy as np
import torch

from pipeline.config import GradientStudyConfig, TrainConfig, UserError
from pipeline.data.batches import Rows
from pipeline.data.loader import Loader
from pipeline.files import write_whole
from pipeline.models import ConvNet, build
from pipeline.progress import say
from pipeline.study.looks import Seen, look
from pipeline.study.members import Members
from pipeline.train import Job, checkpoint, fit
from pipeline.train.start import build_model
from pipeline.train.weights import switches

REDRAWN = 1_000_003
"""Times a draw's number, added to the run's seed: a seed that no run has."""


def train_and_look(study: GradientStudyConfig, members: Members) -> None:
    """What is trained or looked at already is not done again.

    :raises Preempted: the job was asked to stop, and has saved.
    """
    for (member, _), job in members:
        trains = member not in study.untrained
        if trains:
            fit(job)
        for step in study.look.at if trains else [0]:
            job.ranks.at("looking", step, long=True)
            if job.ranks.first:
                _keep_look(study, job, step)
            job.ranks.stop_if_asked(f"after a look at {job.config.name}")


def file_of(config: TrainConfig, step: int) -> Path:
    return config.folder / "looks" / f"step_{step:08d}.json"


def read(config: TrainConfig, step: int) -> dict | None:
    """A look's figures; none if it was not taken."""
    file = file_of(config, step)
    return json.loads(file.read_text())["found"] if file.exists() else None


def _keep_look(study: GradientStudyConfig, job: Job, step: int) -> None:
    file, settings = file_of(job.config, step), _decides(study, job)
    if file.exists() and json.loads(file.read_text())["settings"] == settings:
        return
    say(f"{job.config.name}: a look at step {step}")
    seed = job.config.seed
    model = _at(job, step)

    def redrawn(draw: int) -> ConvNet:
        # Of the run's own config, but for the seed.
        return build_model(job.config.model_copy(update={"seed": _other(seed, draw)}), classes, job.ranks)

    classes = job.train.classes
    found = look(model, _pictures(study, job), redrawn, study.look, seed)
    write_whole(file, json.dumps({"settings": settings, "found": found}).encode())


def _decides(study: GradientStudyConfig, job: Job) -> dict:
    """Everything that a look as drawn depends on; a trained run that changed is refused before."""
    about = {"model": job.config.model, "pictures": job.config.data.pictures}
    # Without defaults: a key that is new in the code changes nothing.
    told = {key: section.model_dump(exclude_defaults=True) for key, section in about.items()}
    return study.look.model_dump(exclude={"at"}) | told | {"split": job.train.fingerprint}


def _other(seed: int, draw: int) -> int:
    return (seed + REDRAWN * (draw + 1)) % 2**63


def _at(job: Job, step: int) -> ConvNet:
    """:raises UserError: no checkpoint of that step was kept."""
    if step == 0:
        return build_model(job.config, job.train.classes, job.ranks)
    folder = job.config.folder / "checkpoints"
    there = {checkpoint.step_of(path): path for path in checkpoint.numbered(folder)}
    if step not in there:
        raise UserError(
            f"look.at: {step}: {folder} has step {', '.join(map(str, there))}; choose one of them, or change "
            "run.checkpoint.every and keep"
        )
    model = build(job.config.model.name, len(job.train.classes), **switches(job.config.model))
    model.load_state_dict(checkpoint.read(there[step])["model"])
    return model.to(job.ranks.device)


def _pictures(study: GradientStudyConfig, job: Job) -> list[Seen]:
    """Mini-batches of training pictures, central windows, a function of the seed alone."""
    settings, data = study.look, job.config.data
    wanted = settings.batches * settings.pictures
    if wanted > len(job.train):
        raise UserError(f"look: {wanted} pictures are asked for, and {data.index} trains on {len(job.train)}")
    rng = np.random.default_rng(np.random.SeedSequence([job.config.seed, wanted]))
    drawn = rng.choice(len(job.train), wanted, replace=False).reshape(settings.batches, settings.pictures)
    rows = (Rows(each, np.zeros(len(each), np.int64), np.ones(len(each), np.float32)) for each in drawn)
    loader = Loader(job.train, data.pictures, data.loading, job.ranks.device, channels_last=False)
    batches = list(loader.evaluation(rows, settings.pictures))
    if faults := [fault for batch in batches for fault in batch.faults]:
        raise UserError(f"{faults[0].path}: {faults[0].reason}; launch.prepare --verify leaves it out")
    return [Seen(batch.images.to(torch.float32).clone(), batch.labels.clone()) for batch in batches]
