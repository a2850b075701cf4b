"""The three ways to a classifier for a new task: frozen, finetuned, from scratch.

Each returns the answers on the test pictures and what was chosen without them.
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config import Checkpoint, Data, Monitor, Recipe, TrainConfig, TransferConfig
from pipeline.data.loader import Loader
from pipeline.train import Job, fit
from pipeline.train.ranks import Ranks
from pipeline.transfer.backbone import Backbone
from pipeline.transfer.features import features, refuse
from pipeline.transfer.probe import probe
from pipeline.transfer.subsets import stratified_split
from pipeline.transfer.task import Task

Answers = tuple[np.ndarray, dict]
"""(N,) int64 predictions for the test split, and what was chosen, for the result's row."""


@dataclass(frozen=True)
class Stage:
    """What all modes share."""

    config: TransferConfig
    backbone: Backbone
    ranks: Ranks

    def answers(self, task: Task, mode: str, number: int) -> Answers:
        """One mode's answers for the task's seed ``number``."""
        if mode == "frozen":
            return self.frozen(task, number)
        return self.trained(task, mode, number)

    def identity(self, task: Task, mode: str, number: int) -> dict:
        """Everything that decides the answers, for telling whether kept ones are still right."""
        identity = {
            "seed": self.config.seed + number,
            "pictures": self.config.pictures.model_dump(),
            "test": task.test.fingerprint,
            "train": task.train.take(task.rows[number]).fingerprint,
        }
        if mode != "scratch":
            identity["checkpoint_sha256"] = self.backbone.digest
        if mode == "frozen":
            choosing = task.dataset.model_dump(include={"validation", "choose_by"})
            return identity | choosing
        recipe = getattr(self.config, mode)
        fixed = {"optim": recipe.optim.model_dump(), "train": recipe.train.model_dump(exclude={"device"})}
        return identity | {mode: fixed, "model": self.backbone.about.model_dump()}

    def frozen(self, task: Task, number: int) -> Answers:
        """Features of the frozen network, then logistic regression with its λ chosen on validation.

        All ranks compute features; the first one alone fits, the others' answers are empty.
        """
        used = np.unique(np.concatenate(task.rows))
        train = self._features(task, task.train.take(used), "training features")
        test = self._features(task, task.test, "test features")
        if not self.ranks.first:
            return np.empty(0, np.int64), {}
        rows = np.searchsorted(used, task.rows[number])
        labels = task.train.labels[used].astype(np.int64)
        seed = self.config.seed + number
        fitted, held_out = stratified_split(labels[rows], task.dataset.validation, seed)
        classes = len(task.train.classes)
        with warnings.catch_warnings(record=True) as caught:
            splits = rows[fitted], rows[held_out]
            by = task.dataset.choose_by
            found, choice = probe(np.asarray(train), labels, *splits, classes=classes, by=by)
        for warning in caught:
            print(f"{task.dataset.name} frozen, seed {seed}: {warning.message}", file=sys.stderr, flush=True)
        chosen = {"lambda": choice.lam, "val_top1": choice.val_accuracy, "at_edge": choice.at_edge}
        chosen |= {"unconverged": choice.unconverged, "path": choice.path}
        return found.predict(np.asarray(test)), chosen

    def trained(self, task: Task, mode: str, number: int) -> Answers:
        """The training loop on the task, from the checkpoint with a new head or from random weights."""
        config = self._train_config(task, mode, number)
        rows = task.train.take(task.rows[number])
        job = Job(config, self.ranks, rows, evaluation_batch=self.config.batch)
        model = fit(job)
        seen = job.evaluate(model, task.test, f"{config.name} on {task.dataset.test}")
        refuse(seen.faults)
        recipe = getattr(self.config, mode)
        chosen = {"lr": recipe.optim.lr, "epochs": recipe.train.epochs, "batch": recipe.train.batch}
        return seen.predictions, chosen

    def _features(self, task: Task, split, title: str) -> np.ndarray:
        config = self.config
        loader = Loader(split, config.pictures, config.loading, self.ranks.device, channels_last=True)
        batch = min(config.batch, -(-len(split) // self.ranks.world))
        folder = Path(config.runs) / "features"
        return features(self.backbone, loader, batch, folder, self.ranks, f"{task.dataset.name} {title}")

    def _train_config(self, task: Task, mode: str, number: int) -> TrainConfig:
        recipe: Recipe = getattr(self.config, mode)
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
                pictures=self.config.pictures,
                loading=self.config.loading,
            ),
            model=self.backbone.about.model_copy(update=weights),
            optim=recipe.optim,
            train=recipe.train,
            checkpoint=Checkpoint(every=recipe.train.epochs, keep=1),
            monitor=Monitor(wandb=False, log_every=self.config.monitor.log_every),
        )
