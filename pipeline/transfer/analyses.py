"""What else is asked of the frozen network's features: neighbours, few pictures, depths, resolutions, a map.

Each figure has answers of its own, kept in ``<dataset>/analyses/``, so that it is computed and tested once.
Shots are drawn ``frozen.draws`` times, draw d from the training pictures of the task's seed d modulo its
seeds; all else is asked once for each seed of the task.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from pipeline.config import Pictures, TransferConfig, UserError
from pipeline.progress import Bar, say
from pipeline.transfer.answers import Answers
from pipeline.transfer.atlas import keep_map
from pipeline.transfer.backbone import LAST, Backbone
from pipeline.transfer.frozen import Found, Seen, few, nearest, probed
from pipeline.transfer.modes import Stage
from pipeline.transfer.scored import Scored
from pipeline.transfer.statistics import interval
from pipeline.transfer.task import Task


@dataclass(frozen=True)
class Analysis:
    """One reported figure.

    :ivar kind: neighbours, shots, depth or resolution. :ivar x: how many a class, which stage, pixels.
    :ivar runs: repetitions.
    """

    kind: str
    x: int | str | None
    runs: int

    @property
    def name(self) -> str:
        return self.kind if self.x is None else f"{self.kind}-{self.x}"


def planned(stage: Stage, task: Task) -> list[Analysis]:
    """In the order of the report; a resolution that is the frozen mode's own is not asked twice."""
    asked, seeds = stage.config.frozen, task.dataset.seeds
    shots = [] if task.multilabel else sorted(asked.shots)
    own = stage.pictures(task, "frozen").evaluation_size
    return [
        *([Analysis("neighbours", None, seeds)] if asked.neighbours else []),
        *(Analysis("shots", number, asked.draws) for number in shots),
        *(Analysis("depth", stage, seeds) for stage in sorted(asked.depths, key=_number)),
        *(Analysis("resolution", side, seeds) for side in sorted(asked.resolutions) if side != own),
    ]


def check_analyses(
    config: TransferConfig, tasks: Sequence[Task], backbone: Backbone | None, tell: bool = True
) -> None:
    """Before anything is computed.

    :param backbone: none if it is not there yet. :param tell: what is left out for a dataset is told.
    :raises UserError: something is asked that a dataset or the network cannot give.
    """
    if backbone is not None:
        _check_network(config, backbone)
    asked = config.frozen
    for task in tasks:
        name = task.dataset.name
        known = min(len(each.fit) for each in task.draws)
        if asked.neighbours and max(asked.neighbours) > known:
            raise UserError(
                f"frozen.neighbours: {max(asked.neighbours)}, but {name} has {known} pictures to learn from "
                f"while k is chosen; give at most {known}"
            )
        if asked.shots and task.multilabel and tell:
            say(f"{name}: frozen.shots is left out: several labels a picture have no pictures a class")
        elif asked.shots and not task.multilabel:
            _check_shots(max(asked.shots), task)
        tested = len(task.draws[0].tested)
        if asked.map and tested < 10:
            raise UserError(f"frozen.map: {name} has {tested} test pictures, a map needs 10; leave it out")


def check_tasks(config: TransferConfig) -> None:
    """All of a transfer that can be checked before its checkpoint is there.

    :raises UserError: as the transfer would.
    """
    tasks = [Task.open(each, config.seed, f"datasets.{i}") for i, each in enumerate(config.datasets)]
    check_analyses(config, tasks, None)


def _check_shots(most: int, task: Task) -> None:
    classes = task.learned.classes
    for drawn in task.draws:
        counts = np.bincount(task.learned.labels[drawn.rows], minlength=len(classes))
        if counts.min() < most:
            raise UserError(
                f"frozen.shots: {most}, but class {classes[counts.argmin()]!r} of {task.dataset.name} has "
                f"{counts.min()} training pictures; give at most that many"
            )


def _check_network(config: TransferConfig, backbone: Backbone) -> None:
    asked, name = config.frozen, backbone.about.name
    if unknown := [depth for depth in asked.depths if depth not in backbone.stages]:
        raise UserError(f"frozen.depths: {unknown[0]!r}: {name} has {', '.join(backbone.stages)}")
    if asked.resolutions and min(asked.resolutions) < backbone.stride:
        raise UserError(
            f"frozen.resolutions: {min(asked.resolutions)}: {name} makes one position of {backbone.stride} "
            f"pixels; give at least {backbone.stride}"
        )


def missing(stage: Stage, task: Task) -> list[tuple[Analysis, int]]:
    """Analyses and their runs that are asked and not kept yet.

    :raises UserError: a file holds answers to another question.
    """
    return [
        (each, number)
        for each in planned(stage, task)
        for number, file in enumerate(_files(stage, task, each))
        if not Answers.known(file, _identity(stage, task, each, number))
    ]


def analyse(stage: Stage, task: Task) -> None:
    """All that is asked and not kept yet."""
    config, ranks, name = stage.config, stage.ranks, task.dataset.name
    fitted = ranks.gather(missing(stage, task))[
        0
    ]  # asked on every rank, so that all of them end on a mistake
    with Bar(f"{name} analyses", len(fitted), "fits", ranks.first and bool(fitted)) as bar:
        # What follows one another and needs the same features asks the cache for them once.
        for (shown, depths), fits in groupby(fitted, lambda one: _needs(stage, task, one[0])):
            seen = stage.seen(task, shown, depths)
            for each, number in fits:
                ranks.stop_if_asked(f"before {name} {each.name}, run {number}")
                ranks.at(f"{name} {each.name}, run {number}", long=True)
                if ranks.first:
                    answers, chosen, _ = _answers(stage, task, each, number, seen)
                    seed, identity = number % task.dataset.seeds, _identity(stage, task, each, number)
                    labels, rows = task.labels(task.test(seed)), task.draws[seed].tested
                    found = Answers(answers, labels, rows, chosen, identity)
                    found.keep(_files(stage, task, each)[number])
                bar.advance()
    if config.frozen.map:
        seen = stage.seen(task, stage.pictures(task, "frozen"))[LAST]
        ranks.at(f"{name} map", long=True)
        if ranks.first:
            file = config.folder / "transfer" / f"{name}.map.npz"
            keep_map(seen, config.frozen.map, stage.identity(task, "frozen", 0), file)
    ranks.barrier()


def concluded(stage: Stage, task: Task, result: dict) -> list[dict]:
    """For the dataset's result, each analysis with its interval over its runs and test pictures.

    The frozen mode's own figure is among the depths and resolutions, with ``mode``.
    """
    found = [_concluded(stage, task, each) for each in planned(stage, task)]
    own = stage.pictures(task, "frozen").evaluation_size
    for kind, x in (("depth", LAST), ("resolution", own)):
        places = [number for number, each in enumerate(found) if each["kind"] == kind]
        if places:
            about = {key: found[places[0]][key] for key in ("protocol", "metric", "n_train")}
            frozen = {"kind": kind, "x": x, "mode": "frozen"} | about | result["summary"]["frozen"]
            later = [place for place in places if kind == "depth" or found[place]["x"] < own]
            found.insert(later[-1] + 1 if later else places[0], frozen | {"results": []})
    return found


def _concluded(stage: Stage, task: Task, analysis: Analysis) -> dict:
    runs = [Answers.read(file) for file in _files(stage, task, analysis)]
    classes = len(task.learned.classes)
    scored = Scored(task.metric, runs, classes, len(task.pool))
    rows = []
    for number, run in enumerate(runs):
        low, high = interval(scored.scores[number])
        row = {"seed": run.identity["seed"], "value": float(scored.values[number]), "low": low, "high": high}
        rows.append(row | {"chosen": run.chosen})
    trained = analysis.x * classes if analysis.kind == "shots" else len(task.draws[0].rows)
    about = {"kind": analysis.kind, "x": analysis.x, "protocol": task.dataset.protocol}
    about |= {"metric": task.dataset.metric, "n_train": trained}
    return about | vars(scored.estimate()) | {"results": rows}


def _needs(stage: Stage, task: Task, analysis: Analysis) -> tuple[Pictures, Sequence[str]]:
    """How its pictures are shown, and the depths whose features come with its own."""
    shown = stage.pictures(task, "frozen")
    if analysis.kind == "resolution":
        shown = _at(shown, analysis.x)
    return shown, stage.config.frozen.depths if analysis.kind == "depth" else [LAST]


def _answers(stage: Stage, task: Task, analysis: Analysis, number: int, seen: dict[str, Seen]) -> Found:
    """On the first rank, which alone fits.

    :param seen: features by depth, as ``_needs`` has them.
    """
    config, seed = stage.config, number % task.dataset.seeds
    if task.fixed and number > 0 and analysis.kind != "shots":  # nothing in it is random
        first = Answers.read(_files(stage, task, analysis)[0])
        return first.answers, first.chosen, None
    own = seen[analysis.x if analysis.kind == "depth" else LAST]
    if analysis.kind == "neighbours":
        return nearest(own, seed, config.frozen.neighbours)
    if analysis.kind == "shots":
        return few(own, seed, analysis.x, config.seed + number)
    title = f"{task.dataset.name} {analysis.name}, seed {config.seed + number}"
    return probed(own, seed, config.frozen.search, title)


def _identity(stage: Stage, task: Task, analysis: Analysis, number: int) -> dict:
    """Everything that decides the answers."""
    identity = stage.identity(task, "frozen", number % task.dataset.seeds)
    identity |= {"seed": stage.config.seed + number, "analysis": analysis.kind, "x": analysis.x}
    if analysis.kind == "resolution":
        identity["pictures"] = _at(stage.pictures(task, "frozen"), analysis.x).model_dump()
    if analysis.kind == "shots":
        identity["drawn"] = "apart from the seed's own pictures"
    if analysis.kind == "neighbours":
        identity["neighbours"] = sorted(stage.config.frozen.neighbours)
        if task.multilabel:
            identity["metric"] = task.dataset.metric  # by which k is chosen, whatever the probe's λ is
    searching = {"neighbours": ["search"], "shots": ["search", "validation", "choose_by", "metric"]}
    return {key: value for key, value in identity.items() if key not in searching.get(analysis.kind, [])}


def _files(stage: Stage, task: Task, analysis: Analysis) -> list[Path]:
    folder, seeds = stage.config.folder / "transfer" / task.dataset.name / "analyses", task.dataset.seeds
    # With another number of seeds, a draw of shots may be of another one's pictures.
    of = {number: f"-of-{number % seeds}" for number in range(seeds, analysis.runs)}
    return [folder / f"{analysis.name}-{number}{of.get(number, '')}.npz" for number in range(analysis.runs)]


def _at(pictures: Pictures, side: int) -> Pictures:
    """At another crop, the short side scaled along."""
    short = round(pictures.eval_resize * side / pictures.evaluation_size)
    return pictures.model_copy(update={"eval_size": side, "eval_resize": short})


def _number(stage: str) -> int:
    return int(stage.removeprefix("stage"))
