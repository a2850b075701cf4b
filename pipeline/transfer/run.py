"""The transfer stage: every dataset, mode and seed of a config, each once, then one table."""

import json
from pathlib import Path

from pipeline.config import TransferConfig, UserError, dump
from pipeline.data.loader import Loader
from pipeline.data.order import share
from pipeline.files import write_whole
from pipeline.monitor.samples import keep_samples, spread
from pipeline.train.ranks import Ranks
from pipeline.train.run import claimed
from pipeline.transfer.analyses import analyse, check_analyses, concluded, missing
from pipeline.transfer.answers import Answers
from pipeline.transfer.backbone import Backbone
from pipeline.transfer.mistakes import keep_mistakes
from pipeline.transfer.modes import Stage
from pipeline.transfer.results import summarise
from pipeline.transfer.task import Task


def run(config: TransferConfig, ranks: Ranks, only: str | None = None) -> list[dict]:
    """Evaluates the checkpoint on all datasets; goes on where it was stopped.

    :param only: one dataset, by name or by place from 0; others may be another job's at the same time.
    :return: the datasets' results, on the first rank; on others nothing.
    :raises UserError: something in the config, the checkpoint or an index is not right.
    """
    backbone = Backbone.read(config.checkpoint, ema=config.ema, tell=ranks.first, name=config.model.name)
    pictures = backbone.normalised(config.pictures, tell=ranks.first)
    config = config.model_copy(update={"pictures": pictures})
    stage = Stage(config, backbone, ranks)
    for mode in set(config.modes) - {"frozen"}:
        recipe = getattr(config, mode).train
        share(recipe.batch, ranks.world, recipe.accumulate, f"{mode}.train.batch")
    chosen = [(i, each) for i, each in enumerate(config.datasets) if only in (None, each.name, str(i))]
    if not chosen:
        names = ", ".join(each.name for each in config.datasets)
        raise UserError(f"--only {only}: no such dataset; the config has {names}")
    tasks = [Task.open(each, config.seed, f"datasets.{i}") for i, each in chosen]
    check_analyses(config, tasks, backbone, ranks.first)
    for task in tasks:  # nothing is computed or written before all that is kept is known to go with it
        _missing(stage, task)
        missing(stage, task)
    if ranks.first:
        write_whole(config.folder / "transfer" / "config.yaml", dump(config).encode())
    results = []
    for task in tasks:
        ranks.at(f"{task.dataset.name}, what is known", long=True)
        with claimed(config.folder / "transfer" / task.dataset.name, ranks):
            _answer(stage, task)
            analyse(stage, task)
            ranks.at(f"{task.dataset.name}, its table", long=True)
            if ranks.first:
                results.append(_conclude(stage, task))
    ranks.barrier()  # a rank that has left stands still for the watchdog
    return results


def _files(stage: Stage, task: Task) -> dict[str, list[Path]]:
    """By mode, where each seed's answers are kept."""
    folder, seeds = stage.config.folder / "transfer" / task.dataset.name, range(task.dataset.seeds)
    return {mode: [folder / f"{mode}-{number}.npz" for number in seeds] for mode in stage.config.modes}


def _missing(stage: Stage, task: Task) -> list[tuple[str, int]]:
    """Modes and seeds whose answers are not kept yet.

    :raises UserError: a file holds answers to another question.
    """
    return [
        (mode, number)
        for mode, files in _files(stage, task).items()
        for number, file in enumerate(files)
        if not Answers.known(file, stage.identity(task, mode, number))
    ]


def _answer(stage: Stage, task: Task) -> None:
    """Every mode's and seed's answers that are not kept yet."""
    name, kept = task.dataset.name, _files(stage, task)
    # Asked on every rank, so that all of them end on a mistake.
    for mode, number in stage.ranks.gather(_missing(stage, task))[0]:
        stage.ranks.stop_if_asked(f"before {name} {mode}, seed {number}")
        stage.ranks.at(f"{name} {mode}, seed {number}", long=mode == "frozen")
        if mode == "frozen" and task.fixed and number > 0:
            first = Answers.read(kept[mode][0]) if stage.ranks.first else None  # nothing in it is random
            found = (first.answers, first.chosen, first.confidence) if first else (None, {}, None)
        else:
            found = stage.answers(task, mode, number)
        if stage.ranks.first:
            labels, rows = task.labels(task.test(number)), task.draws[number].tested
            answers, chosen, confidence = found
            identity = stage.identity(task, mode, number)
            Answers(answers, labels, rows, chosen, identity, confidence).keep(kept[mode][number])
    stage.ranks.barrier()


def _conclude(stage: Stage, task: Task) -> dict:
    """The dataset's result, from the kept answers, written beside them."""
    folder, name = stage.config.folder / "transfer", task.dataset.name
    runs = {mode: [Answers.read(file) for file in files] for mode, files in _files(stage, task).items()}
    result = summarise(stage, task, runs)
    result["analyses"] = concluded(stage, task, result)
    _write_json(folder / f"{name}.json", result)
    _keep_pictures(stage, task, {mode: each[0] for mode, each in runs.items()}, folder)
    return result


def _keep_pictures(stage: Stage, task: Task, runs: dict[str, Answers], folder: Path) -> None:
    """Of the first seed's test: some, evenly through it, and every mode's surest mistakes."""
    config, test, name = stage.config, task.test(0), task.dataset.name
    if not config.monitor.samples:
        return
    pictures = stage.pictures(task, "frozen")
    loader = Loader(test, pictures, config.loading, stage.ranks.device, channels_last=True)
    rows = spread(len(test), config.monitor.samples)
    said = {f"predictions_{mode}": each.top[rows] for mode, each in runs.items()}
    keep_samples(folder / f"{name}.samples.npz", loader, rows, said)
    keep_mistakes(folder / f"{name}.mistakes.npz", loader, runs)


def _write_json(file: Path, content: dict) -> None:
    write_whole(file, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
