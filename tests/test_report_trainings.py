"""Several trainings in one table: settings as lines, seeds as a mean with its interval."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import config_tree, door
from scipy import stats

from pipeline.config import TrainConfig
from pipeline.report import load, settings

SCORES = {0.1: [0.90, 0.91, 0.92], 0.2: [0.88, 0.89, 0.87]}


def written(root: Path, name: str, score: float | None, ema: float | None = None, **changes) -> str:
    """A run's folder, as a training leaves it; without a score, one that has not ended."""
    tree = {
        "name": name,
        "runs": str(root),
        "seed": 0,
        "engine": "ddp",
        "data": {"index": "data/x", "val": None, "test": "test", "loading": {"threads": 1}},
        "optim": {"lr": 0.1, "warmup": 4},
        "train": {"epochs": 2, "steps": None, "compile": False},
    }
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = tree
        for section in sections:
            place = place[section]
        place[last] = value
    rows = [{"time": 1.0, "step": 10, "epoch": 1.0, "split": "train", "loss": 1.0, "top1": 0.5}]
    if score is not None:
        rows.append(rows[0] | {"time": 2.0, "step": 20, "epoch": 2.0})
        rows.append(rows[-1] | {"split": "test", "loss": 0.3, "top1": score})
        rows[-1] |= {"ema_top1": ema} if ema else {}
    (root / name).mkdir()
    (root / name / "config.yaml").write_text(yaml.safe_dump(tree))
    (root / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(root / name)


@pytest.fixture
def runs(tmp_path) -> list[str]:
    """Two learning rates, three seeds each; a fourth of one that has not ended."""
    found = [
        written(tmp_path, f"lr{lr}-{seed}", score, optim__lr=lr, seed=seed, train__compile=seed == 1)
        for lr, scores in SCORES.items()
        for seed, score in enumerate(scores)
    ]
    return [*found, written(tmp_path, "late", None, optim__lr=0.2, seed=3)]


def test_settings_are_what_differs_but_for_seeds_and_where_it_ran(runs):
    found = settings([load(run) for run in reversed(runs)])
    assert [each.values for each in found] == [{"optim.lr": 0.1}, {"optim.lr": 0.2}]
    assert [each.unfinished for each in found] == [[], ["late"]]
    for each, scores in zip(found, SCORES.values(), strict=True):
        half = 100 * stats.t.ppf(0.975, 2) * np.std(scores, ddof=1) / np.sqrt(3)
        mean = 100 * np.mean(scores)
        assert each.top1.seeds == 3
        assert (each.top1.low, each.top1.value, each.top1.high) == pytest.approx(
            (mean - half, mean, mean + half)
        )
        assert each.average is None


def test_another_index_engine_or_split_is_another_setting(tmp_path):
    changes = [{}, {"data__index": "data/y"}, {"engine": "deepspeed"}, {"data__test": "val2"}]
    folders = [written(tmp_path, f"run{i}", 0.5, **each) for i, each in enumerate(changes)]
    assert len(settings([load(folder) for folder in folders])) == 4


def test_without_a_test_split_a_run_has_ended_with_its_last_step(tmp_path):
    how = {"data__test": None, "data__val": "val"}

    def one(name: str, score: float | None, old: str = "", new: str = "", **changes) -> tuple:
        folder = Path(written(tmp_path, name, score, **how, **changes))
        rows = (folder / "metrics.jsonl").read_text().replace('"test"', '"val"')
        (folder / "metrics.jsonl").write_text(rows.replace(old, new) if old else rows)
        (found,) = settings([load(folder)])
        return found.split, found.top1 and found.top1.value, found.unfinished

    ended = ("val", 50.0, [])
    assert one("epochs", 0.5) == ended
    assert one("steps", 0.5, train__epochs=100, train__steps=20) == ended
    # 15,625 steps of 96 of 50,000 pictures are 29.999999999999996 epochs, of 30 that were asked.
    assert one("rounded", 0.5, '"epoch": 2.0', '"epoch": 1.9999999999999998') == ended
    assert one("begun", None) == (None, None, ["begun"])
    evaluated_before = '"epoch": 1.0, "split": "val"'
    late = one(
        "evaluating", 0.5, '"step": 20, "epoch": 2.0, "split": "val"', f'"step": 10, {evaluated_before}'
    )
    assert late == (None, None, ["evaluating"]), "an earlier epoch's figure is not the last one's"


def test_runs_of_one_seed_are_one_seed(tmp_path):
    """Of the undisturbed and the killed run of one seed the mean, and no interval of no width."""
    scores = {"whole": (0.75, 0), "killed": (0.77, 0), "other": (0.80, 1)}
    folders = [written(tmp_path, name, score, seed=seed) for name, (score, seed) in scores.items()]
    (found,) = settings([load(folder) for folder in folders[:2]])
    assert (found.top1.told("{:.2f}"), found.top1.seeds, found.ended) == ("76.00", 1, 2)
    (found,) = settings([load(folder) for folder in folders])
    assert (found.top1.value, found.top1.seeds) == (78.0, 2)
    told = door("launch.report", *folders[:2])
    assert re.search(r"^test +76\.00 +1 in 2 runs *$", told.stdout, re.MULTILINE), told.stdout


def test_a_key_that_is_newer_than_a_run_makes_no_other_setting(tmp_path):
    folders = [Path(written(tmp_path, name, 0.5)) for name in ("old", "new")]
    for seed, folder in enumerate(folders):
        tree = config_tree("x", tmp_path, seed=seed, data__test="test", train__epochs=2.0)
        tree = TrainConfig.model_validate(tree).model_dump()
        if folder.name == "old":
            del tree["model"]["shortcut"]
        (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    (found,) = settings([load(folder) for folder in folders])
    assert (found.values, found.ended) == ({}, 2)


def test_a_folder_that_is_given_twice_counts_once(runs):
    found = door("launch.report", runs[0], f"{runs[0]}/")
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("report") == 1


def test_the_door_prints_the_table(runs, tmp_path):
    found = door("launch.report", *runs, written(tmp_path, "averaged", 0.93, 0.94, optim__lr=0.4))
    assert found.returncode == 0, found.stderr
    lines = [line.split() for line in found.stdout.splitlines()]
    assert ["0.1", "test", "91.00", "[88.52,", "93.48]", "–", "3"] in lines
    assert ["0.2", "test", "88.00", "[85.52,", "90.48]", "–", "3", "+", "1", "not", "ended"] in lines
    assert ["0.4", "test", "93.00", "94.00", "1"] in lines
    assert "optim.lr" in found.stdout


def test_one_run_has_no_such_table(runs):
    found = door("launch.report", runs[0])
    assert "over seeds" not in found.stdout
