"""Several trainings in one table: settings as lines, seeds as a mean with its interval."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import door
from scipy import stats

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
        rows.append({"time": 2.0, "step": 20, "epoch": 2.0, "split": "test", "loss": 0.3, "top1": score})
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
    for name, changes in {"epochs": {}, "steps": {"train__epochs": 100, "train__steps": 20}}.items():
        folder = Path(written(tmp_path, name, 0.5, **how, **changes))
        rows = (folder / "metrics.jsonl").read_text().replace('"test"', '"val"')
        (folder / "metrics.jsonl").write_text(rows)
        (found,) = settings([load(folder)])
        assert (found.split, found.top1.value, found.unfinished) == ("val", 50.0, [])
    (found,) = settings([load(written(tmp_path, "begun", None, **how))])
    assert (found.top1, found.unfinished) == (None, ["begun"])


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
