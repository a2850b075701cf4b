"""Features computed once for T tasks, against once for each of them: measured seconds."""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipeline.config import PrecomputeConfig, UserError
from pipeline.data.index import Split, open_index
from pipeline.data.loader import Loader
from pipeline.figures.style import Look, new_figure, styled, title
from pipeline.files import write_whole
from pipeline.machine import hardware
from pipeline.progress import say
from pipeline.study.page import Page, Panel, Table, Verdict
from pipeline.study.seeds import AGREES, DIFFERS, judge, over_seeds
from pipeline.study.trained import each_once
from pipeline.train.ranks import Ranks
from pipeline.train.run import claimed
from pipeline.transfer.backbone import Backbone
from pipeline.transfer.features import features
from pipeline.transfer.probe import probe

WAYS = ("once", "each")


def measure(study: PrecomputeConfig, ranks: Ranks) -> None:
    """A file of seconds for each seed; a seed that is done is not done again.

    :raises UserError: no such checkpoint or index, too few pictures, or another command measures: two would
        disturb each other's seconds.
    :raises Preempted: the job was asked to stop between two extractions, or in one.
    """
    backbone = check(study, tell=ranks.first)
    with claimed(study.folder, ranks):
        for seed in study.seeds:
            if read(study, seed) is None:
                _measure_seed(study, seed, backbone, ranks)


def _measure_seed(study: PrecomputeConfig, seed: int, backbone: Backbone, ranks: Ranks) -> None:
    if ranks.first:
        say(f"{study.name}: seed {seed}")
    pictures, halves = _drawn(study, seed)
    # The disk's cache and the libraries' first calls are paid for before anything is timed.
    _solve(study, backbone, pictures, halves[:1], ranks)
    found = {"once": [_solve(study, backbone, pictures, halves, ranks)]}
    found["each"] = [_solve(study, backbone, pictures, [half], ranks) for half in halves]
    if ranks.first:
        about = {"settings": _settings(study), "hardware": hardware()}
        write_whole(_file(study, seed), json.dumps(about | found).encode())


def check(study: PrecomputeConfig, tell: bool = True) -> Backbone:
    """Before anything is measured.

    :raises UserError: no such checkpoint or index, or too few pictures.
    """
    _drawn(study, study.seeds[0])
    return Backbone.read(study.checkpoint, tell=tell)


def read(study: PrecomputeConfig, seed: int) -> dict | None:
    """``once`` and ``each``: lists of extractions, each with ``features_s``, ``probe_s`` and ``right``."""
    file = _file(study, seed)
    found = json.loads(file.read_text()) if file.exists() else None
    return found if found and found["settings"] == _settings(study) else None


def _file(study: PrecomputeConfig, seed: int) -> Path:
    return study.folder / f"seed{seed}.json"


def _settings(study: PrecomputeConfig) -> dict:
    # Without defaults: a key that is new in the code changes nothing.
    return study.model_dump(exclude={"name", "runs", "seeds", "full", "full_size"}, exclude_defaults=True)


def _drawn(study: PrecomputeConfig, seed: int) -> tuple[list[Split], list[np.ndarray]]:
    """Training pictures, then those of the test; and for each task, (classes,) 0 or 1."""
    index, rng = open_index(study.data.index), np.random.default_rng(seed)
    wanted = {"train": study.train, "test": study.test}
    rows = []
    for split, count in wanted.items():
        there = index.split(getattr(study.data, split) or split, f"data.{split}")
        if count > len(there):
            raise UserError(f"{split}: {count} pictures are asked for; {study.data.index} has {len(there)}")
        rows.append(there.take(np.sort(rng.choice(len(there), count, replace=False))))
    classes = len(rows[0].classes)
    halves = [rng.permutation(classes) % 2 for _ in range(study.tasks)]
    return rows, halves


def _solve(
    study: PrecomputeConfig, backbone: Backbone, parts: list[Split], halves: list, ranks: Ranks
) -> dict:
    """One extraction, in a folder that knows nothing yet, and a classifier for each task."""
    pictures = backbone.normalised(study.data.pictures)
    loaders = [Loader(part, pictures, study.data.loading, ranks.device, channels_last=True) for part in parts]
    study.folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=study.folder) as folder:
        shared = Path(ranks.gather(folder)[0])
        train, test = (np.array(features(backbone, loader, study.batch, shared, ranks)) for loader in loaders)
        ranks.barrier()
    features_s = time.monotonic() - begun
    seconds, right = [], []
    if ranks.first:
        for half in halves:
            begun = time.monotonic()
            labels = half[parts[0].labels.astype(np.int64)]
            fitted, _ = probe(train, labels, *_held_out(len(train)), classes=2)
            seconds.append(time.monotonic() - begun)
            said = fitted.predict(test)
            right.append(float((said == half[parts[1].labels.astype(np.int64)]).mean()))
    return {"features_s": features_s, "probe_s": seconds, "right": right}


def _held_out(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on, and every fifth to choose the penalty on; the rows are of no order in themselves."""
    rows = np.arange(count)
    return rows[rows % 5 > 0], rows[rows % 5 == 0]


def page(study: PrecomputeConfig) -> Page:
    seeds = [read(study, seed) for seed in study.seeds]
    way = {name: np.array([_seconds(seed, name, study.tasks) for seed in seeds]) for name in WAYS}  # (S, T)
    ratio = over_seeds(way["each"][:, -1] / way["once"][:, -1])
    less = over_seeds(way["each"][:, -1] / way["once"][:, -1] - 1)
    same = all(_right(seed, "once") == _right(seed, "each") for seed in seeds)
    source = "the lectures: “ability to pre-compute feature vectors and use for multiple tasks”"
    verdicts = [
        Verdict(
            f"{study.tasks} tasks cost less where features are computed once", source,
            f"once for each takes {ratio.told('{:.2f}')} times as long", judge(less),
        ),
        Verdict(
            "Nothing is lost by it", source,
            "every task's accuracy is the same" if same else "accuracies differ", AGREES if same else DIFFERS,
        ),
    ]  # fmt: skip
    extraction = over_seeds([seed["once"][0]["features_s"] for seed in seeds])
    fitting = over_seeds([np.mean(seed["once"][0]["probe_s"]) for seed in seeds])
    rows = [
        [str(count), *(over_seeds(way[name][:, count - 1]).told("{:.1f}") for name in WAYS)]
        for count in range(1, study.tasks + 1)
    ]
    caption = (
        f"Features of {study.train + study.test:,} pictures took F = {extraction.told('{:.2f}')} s, a "
        f"classifier P = {fitting.told('{:.2f}')} s (45 penalties, chosen on a fifth of {study.train:,} "
        "pictures)."
    )
    panel = Panel(
        "precompute",
        "Seconds by number of tasks",
        lambda look: chart(way, look),
        "once: F + T·P     for each: T·(F + P)",
        "Thick: mean over seeds; bands: least to greatest.",
    )
    told = [
        f"{study.tasks} tasks × {len(seeds)} seeds, features of {study.checkpoint}, frozen.",
        f"Hardware: {each_once(seed.get('hardware') for seed in seeds)}. Seconds are of the clock, on a "
        "machine that others may have used too.",
    ]
    head = ["tasks", "once, s", "for each, s"]
    return Page(
        "Features computed once", verdicts, told, [], [panel], [Table("Measured", head, rows, caption)]
    )


def _seconds(seed: dict, way: str, tasks: int) -> np.ndarray:
    """(T,) seconds until 1, 2, … tasks were solved."""
    if way == "once":
        return seed["once"][0]["features_s"] + np.cumsum(seed["once"][0]["probe_s"])
    return np.cumsum([each["features_s"] + each["probe_s"][0] for each in seed["each"]])


def _right(seed: dict, way: str) -> list[float]:
    return [right for each in seed[way] for right in each["right"]]


def chart(way: dict[str, np.ndarray], look: Look) -> Figure:
    with styled(look):
        figure = new_figure(look.width, 2.8)
        axes = figure.subplots()
        title(axes, "Seconds", look)
        names = {"each": "computed for each", "once": "computed once"}
        for (name, word), colour in zip(names.items(), (look.theme.scratch, look.theme.frozen), strict=True):
            tasks = np.arange(1, way[name].shape[1] + 1)
            axes.fill_between(tasks, way[name].min(0), way[name].max(0), color=colour, alpha=0.2, linewidth=0)
            axes.plot(tasks, way[name].mean(0), "o-", color=colour, markersize=3.5, label=word)
        axes.set_ylim(bottom=0)
        axes.set_xticks(tasks)
        axes.set_xlabel("tasks")
        axes.legend(frameon=False, fontsize=8)
        figure.tight_layout()
        return figure
