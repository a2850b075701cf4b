"""The transfer stage: every dataset, mode and seed of a config, each once, then one table."""

import io
import json
from pathlib import Path

import numpy as np

from pipeline.config import TransferConfig, UserError, dump
from pipeline.data.loader import Loader
from pipeline.data.order import share
from pipeline.files import write_whole
from pipeline.monitor.samples import keep_samples, spread
from pipeline.train.ranks import Ranks
from pipeline.train.resume import differences
from pipeline.train.run import claimed
from pipeline.transfer.backbone import Backbone
from pipeline.transfer.metrics import confusion, metric
from pipeline.transfer.modes import Stage
from pipeline.transfer.statistics import across_seeds, bootstrap, difference
from pipeline.transfer.task import Task


def run(config: TransferConfig, ranks: Ranks, only: str | None = None) -> list[dict]:
    """Evaluates the checkpoint on all datasets; goes on where it was stopped. The datasets' results.

    :param only: one dataset, by name or by place from 0; others may be another job's at the same time.
    :raises UserError: something in the config, the checkpoint or an index is not right.
    """
    stage = Stage(config, Backbone.read(config.checkpoint, ema=config.ema, tell=ranks.first), ranks)
    for mode in set(config.modes) - {"frozen"}:
        recipe = getattr(config, mode).train
        share(recipe.batch, ranks.world, recipe.accumulate, f"{mode}.train.batch")
    chosen = [(i, each) for i, each in enumerate(config.datasets) if only in (None, each.name, str(i))]
    if not chosen:
        names = ", ".join(each.name for each in config.datasets)
        raise UserError(f"--only {only}: no such dataset; the config has {names}")
    tasks = [Task.open(each, config.seed, f"datasets.{i}") for i, each in chosen]
    if ranks.first:
        write_whole(config.folder / "transfer" / "config.yaml", dump(config).encode())
    results = []
    for task in tasks:
        with claimed(config.folder / "transfer" / task.dataset.name, ranks):
            results.append(_evaluate(stage, task))
    return results


def _evaluate(stage: Stage, task: Task) -> dict:
    config, name = stage.config, task.dataset.name
    folder = config.folder / "transfer"
    kept: dict[str, list[Path]] = {}
    for mode in config.modes:
        kept[mode] = []
        for number in range(task.dataset.seeds):
            file = folder / name / f"{mode}-{number}.npz"
            kept[mode].append(file)
            identity = stage.identity(task, mode, number)
            known = _known(file, identity)  # on every rank, so that all of them end on a mistake
            if not stage.ranks.any(stage.ranks.first and not known):
                continue
            stage.ranks.stop_if_asked(f"before {name} {mode}, seed {number}")
            predictions, chosen = stage.answers(task, mode, number)
            if stage.ranks.first:
                _keep(file, predictions, chosen, identity)
    stage.ranks.barrier()
    answers = {mode: [_kept(file) for file in files] for mode, files in kept.items()}
    result = summarise(stage, task, answers)
    if stage.ranks.first:
        _write_json(folder / f"{name}.json", result)
        rows = spread(len(task.test), config.monitor.samples)
        loader = Loader(task.test, config.pictures, config.loading, stage.ranks.device, channels_last=True)
        first = {f"predictions_{mode}": runs[0][0][rows] for mode, runs in answers.items()}
        keep_samples(folder / f"{name}.samples.npz", loader, rows, first)
    return result


def summarise(stage: Stage, task: Task, answers: dict[str, list[tuple[np.ndarray, dict]]]) -> dict:
    """A dataset's result: one row per mode and seed, the modes over seeds, and what transfer adds."""
    dataset, labels, classes = task.dataset, task.test.labels, len(task.test.classes)
    rows, correct = [], {}
    for mode, runs in answers.items():
        correct[mode] = np.stack([predictions == labels for predictions, _ in runs])  # (S, N)
        for number, (predictions, chosen) in enumerate(runs):
            low, high = bootstrap(correct[mode][number], seed=number)
            rows.append(
                {
                    "dataset": dataset.name,
                    "mode": mode,
                    "metric": dataset.metric,
                    "value": metric(dataset.metric)(labels, predictions, classes),
                    "low": low,
                    "high": high,
                    "n_train": len(task.rows[number]),
                    "n_test": len(labels),
                    "seed": stage.config.seed + number,
                    "chosen": chosen,
                    "checkpoint": str(stage.backbone.path),
                    "confusion": confusion(labels, predictions, classes).tolist(),
                }
            )
    over_seeds = {mode: vars(across_seeds(values)) for mode, values in correct.items()}
    gains = {}
    if "scratch" in correct:
        others = [mode for mode in correct if mode != "scratch"]
        gains = {mode: vars(difference(correct[mode], correct["scratch"])) for mode in others}
    return {
        "dataset": dataset.name,
        "classes": task.test.classes,
        "protocol": task.protocol,
        "checkpoint": str(stage.backbone.path),
        "results": rows,
        "summary": over_seeds,
        "improvement": gains,
    }


def _keep(file: Path, predictions: np.ndarray, chosen: dict, identity: dict) -> None:
    whole = io.BytesIO()
    words = {"chosen": np.array(json.dumps(chosen)), "identity": np.array(json.dumps(identity))}
    np.savez_compressed(whole, predictions=predictions, **words)
    write_whole(file, whole.getvalue())


def _known(file: Path, identity: dict) -> bool:
    """Whether just these answers were kept before.

    :raises UserError: the file holds answers to another question: its key and both values.
    """
    if not file.exists():
        return False
    with np.load(file, allow_pickle=False) as found:
        before = json.loads(str(found["identity"]))
    for key, (old, new) in differences(before, identity).items():
        raise UserError(
            f"{key}: {new!r}, but {file} was made with {old!r}; "
            f"give {old!r}, another name, or remove the file"
        )
    return True


def _kept(file: Path) -> tuple[np.ndarray, dict]:
    with np.load(file, allow_pickle=False) as found:
        return found["predictions"], json.loads(str(found["chosen"]))


def _write_json(file: Path, content: dict) -> None:
    write_whole(file, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
