"""The three ways to a classifier for a new task: frozen, finetuned, from scratch.

Each returns the answers on the test pictures and what was chosen without them.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config import (
    Checkpoint,
    Data,
    Monitor,
    Optimizer,
    Pictures,
    Recipe,
    TrainConfig,
    TransferConfig,
    UserError,
)
from pipeline.data.index import Split
from pipeline.files import write_whole
from pipeline.train import Job, fit
from pipeline.train.evaluate import Evaluation
from pipeline.train.nonfinite import DivergedError
from pipeline.train.ranks import Ranks
from pipeline.train.resume import FREE_IN_TRAIN
from pipeline.transfer.answers import complete
from pipeline.transfer.backbone import LAST, Backbone
from pipeline.transfer.features import refuse
from pipeline.transfer.frozen import Found, Seen, probed, see
from pipeline.transfer.grid import choose, score
from pipeline.transfer.task import Task

SAVE_EVERY = 1000
"""Steps between checkpoints, about: what a job that is killed without notice loses."""


@dataclass(frozen=True)
class Stage:
    """What all modes share."""

    config: TransferConfig
    backbone: Backbone
    ranks: Ranks

    def answers(self, task: Task, mode: str, number: int) -> Found:
        """One mode's answers for the task's seed ``number``."""
        if mode == "frozen":
            return self.frozen(task, number)
        return self.trained(task, mode, number)

    def identity(self, task: Task, mode: str, number: int) -> dict:
        """Everything that decides the answers, for telling whether kept ones are still right."""
        dataset = task.dataset
        identity = {
            "seed": self.config.seed + number,
            "pictures": self.pictures(task, mode).model_dump(),
            "test": task.test(number).fingerprint,
            "train": task.learned.take(task.draws[number].rows).fingerprint,
        }
        if task.multilabel:
            identity["difficult"] = dataset.difficult
        if mode != "scratch":
            identity["checkpoint_sha256"] = self.backbone.digest
        choosing = {"validation": dataset.val or dataset.validation, "choose_by": dataset.choose_by}
        if dataset.choose_by == "metric":
            choosing["metric"] = dataset.metric
        if mode == "frozen":
            if (search := self.config.frozen.search) != "full":
                choosing["search"] = search
            return identity | choosing
        recipe = getattr(self.config, mode)
        fixed = {"optim": recipe.optim.model_dump(), "train": recipe.train.model_dump(exclude=FREE_IN_TRAIN)}
        if recipe.grid is not None:
            fixed["grid"] = recipe.grid.model_dump()
            identity |= choosing
        return identity | {mode: fixed, "model": self.backbone.about.model_dump()}

    def pictures(self, task: Task, mode: str) -> Pictures:
        """How the task's pictures are shown: the config's way, in evaluation the protocol's."""
        dataset = task.dataset
        resize = dataset.resize if mode == "frozen" else dataset.resize_trained or dataset.resize
        return resize.of(self.config.pictures) if resize else self.config.pictures

    def frozen(self, task: Task, number: int) -> Found:
        """Features of the frozen network, then logistic regression with its λ chosen on validation.

        All ranks compute features; the first one alone fits, the others' answers are empty.
        """
        depths = (LAST, *self.config.frozen.depths)  # what is asked later comes from the same pass
        seen = self.seen(task, self.pictures(task, "frozen"), depths)[LAST]
        if not self.ranks.first:
            return np.empty(0, np.int64), {}, None
        title = f"{task.dataset.name} frozen, seed {self.config.seed + number}"
        return probed(seen, number, self.config.frozen.search, title)

    def seen(self, task: Task, pictures: Pictures, depths: Sequence[str] = (LAST,)) -> dict[str, Seen]:
        """The task's features by depth, its pictures shown in this way."""
        return see(self.backbone, self.config, self.ranks, task, pictures, depths)

    def trained(self, task: Task, mode: str, number: int) -> Found:
        """The training loop on the task, from the checkpoint with a new head or from random weights."""
        recipe: Recipe = getattr(self.config, mode)
        config, chosen = self._train_config(task, mode, number), {}
        if recipe.grid is not None:
            learned, held_out = (task.part(rows) for rows in task.draws[number].choosing)
            identity = self.identity(task, mode, number)

            def tried(optim: Optimizer) -> float | None:
                place = f"{config.name}/grid/lr{optim.lr:g}-wd{optim.weight_decay:g}"
                trial = config.model_copy(update={"name": place, "optim": optim})
                about = identity | {"tried": optim.model_dump()}
                return self._tried(trial, about, task, learned, held_out)

            batch, key = recipe.train.batch, f"{mode}.grid.lr"
            optim, chosen = choose(recipe.grid, recipe.optim, batch, tried, key)
            config = config.model_copy(update={"optim": optim})
        seen = self._seen(config, task.training(number), task.test(number))
        if not np.isfinite(seen.loss):  # it may diverge in its last steps, or in so few that none is too many
            raise UserError(f"{mode}.optim.lr: training on {task.dataset.name} diverged; give a lower one")
        length = {key: value for key in ("epochs", "steps") if (value := getattr(recipe.train, key))}
        about = {"lr": config.optim.lr, **length, "batch": recipe.train.batch}
        return seen.scores if task.multilabel else seen.predictions, about | chosen, seen.confidence

    def _tried(
        self, trial: TrainConfig, about: dict, task: Task, learned: Split, held_out: Split
    ) -> float | None:
        """One pair of the grid: trained on one split, scored on the other; none = diverged.

        The score is kept, and the checkpoint goes: those of a grid would be hundreds of gigabytes.

        :param about: everything that decides the score.
        """
        file = trial.folder / "score.json"
        known = self.ranks.gather(_kept(file, about) if self.ranks.first else None)[0]
        if known is not None:
            return known["score"]
        try:
            found = score(task, held_out.labels, self._seen(trial, learned, held_out))
        except DivergedError:
            found = None
        if self.ranks.first:
            write_whole(file, json.dumps(about | {"score": found}).encode())
            shutil.rmtree(trial.folder / "checkpoints", ignore_errors=True)
        self.ranks.barrier()
        return found

    def _seen(self, config: TrainConfig, train: Split, test: Split) -> Evaluation:
        """What the network trained on one split says of another."""
        job = Job(config, self.ranks, train, evaluation_batch=self.config.batch)
        seen = job.evaluate(fit(job), test, f"{config.name} on {len(test)} pictures")
        refuse(seen.faults)
        return seen

    def _train_config(self, task: Task, mode: str, number: int) -> TrainConfig:
        recipe: Recipe = getattr(self.config, mode)
        pictures = len(task.draws[number].rows)
        start = str(self.backbone.path) if mode == "finetuned" else None
        weights = {"checkpoint": start, "ema": self.config.ema and start is not None}
        # Another checkpoint at the same path is another run.
        run = f"{mode}-{number}-{self.backbone.digest[:8]}" if start else f"{mode}-{number}"
        return TrainConfig(
            name=f"{self.config.name}/transfer/{task.dataset.name}/{run}",
            runs=self.config.runs,
            seed=self.config.seed + number,
            data=Data(
                index=task.dataset.index,
                train=task.dataset.train,
                val=None,
                pictures=self.pictures(task, mode),
                loading=self.config.loading,
            ),
            model=self.backbone.about.model_copy(update=weights),
            optim=recipe.optim,
            train=recipe.train,
            checkpoint=Checkpoint(every=SAVE_EVERY * recipe.train.batch / pictures, keep=1),
            monitor=Monitor(wandb=False, log_every=self.config.monitor.log_every),
        )


def _kept(file: Path, about: dict) -> dict | None:
    """What was kept of just such a trial."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    complete(found)
    return found if found == json.loads(json.dumps(about)) | {"score": found.get("score")} else None
