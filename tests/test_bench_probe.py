"""The probe's benchmark, small: everything runs and is told. No test judges a time."""

import json

import numpy as np
import pytest
from odd_pictures import encoded, photograph

from launch import bench
from pipeline.bench import photographs
from pipeline.bench.probe.path import figures
from pipeline.bench.probe.plan import GRID, Plan
from pipeline.transfer.probe import LAMBDAS


@pytest.fixture
def few_photographs(tmp_path, monkeypatch):
    """Two, in the place of Debian's."""
    rng = np.random.default_rng(5)
    found = {}
    for name in ("one", "two"):
        (tmp_path / f"{name}.jpg").write_bytes(encoded(photograph(rng, 600, 500)))
        found[name] = [tmp_path / f"{name}.jpg"]
    monkeypatch.setattr(photographs, "debian_photographs", lambda: found)


@pytest.mark.slow
def test_the_command_writes_figures_table_and_picture(few_photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = ["probe", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--threads", "1"]
    words += ["--train", "60", "--val", "20", "--classes", "4", "--side", "32", "--model", "resnet8"]
    words += ["--lambdas", "3", "--size", "32", "--batch", "8", "--extracted", "40", "--rounds", "2"]
    bench.main(words)
    results = json.loads((tmp_path / "out" / "probe.json").read_text())
    path, extraction = results["path"], results["extraction"]
    assert [len(path["told"][name]["path"]) for name in ("ours", "cold", "warm")] == [45, 3, 3]
    assert path["ours_above"] < 1e-4, "scikit-learn's solution is no better"
    assert path["width"] == 64
    assert all(one["features"] > 0 for one in extraction["told"])
    text = (tmp_path / "out" / "probe.md").read_text()
    assert "3 of the 45" in text
    assert (tmp_path / "out" / "probe.png").read_bytes().startswith(b"\x89PNG")
    assert text in capsys.readouterr().out


def test_figures_compare_at_the_lambdas_of_both():
    def told(values, seconds):
        path = [
            {"lam": lam, "seconds": 1, "steps": 2, "short": False, "value": value, "top1": top1, "loss": 1.0}
            for lam, value, top1 in values
        ]
        return {"path": path, "seconds": seconds}

    ours = told([(1.0, 10.0, 0.5), (2.0, 20.0, 0.7), (3.0, 30.0, 0.9)], 3.0)
    cold = told([(1.0, 10.001, 0.8), (2.0, 19.999, 0.7)], 20.0)
    warm = told([(1.0, 10.0, 0.5), (2.0, 22.0, 0.7)], 8.0)
    found = figures({"ours": ours, "cold": cold, "warm": warm})
    assert found["faster"] == pytest.approx(10)
    assert found["faster_than_warm"] == pytest.approx(4)
    assert found["ours_above"] == pytest.approx(20 / 19.999 - 1)
    assert found["warm_above"] == pytest.approx([0, 0.1])
    assert found["chosen"] == {"ours": 2.0, "cold": 1.0, "warm": 2.0, "ours_of_all": 3.0}


def test_the_lambdas_measured_are_the_grids(tmp_path):
    def plan(lambdas):
        return Plan(tmp_path, {}, 1, 1, 1, 1, "resnet8", lambdas, 1, 1, 1, 1, 1)

    assert list(GRID) == LAMBDAS.tolist()
    assert plan(45).chosen() == LAMBDAS.tolist()
    assert plan(9).chosen() == LAMBDAS[2::5].tolist()
    assert plan(1).chosen() == [LAMBDAS[22]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lambdas", "46"), "--lambdas 46: the grid has 45"),
        (("--extracted", "50"), "--extracted 50: give at least three batches, 96"),
        (("--train", "50"), "--train 50: every one of 102 classes needs a picture"),
        (("--model", "resnet21"), "unknown name 'resnet21'"),
        (("--only", "speed"), "--only speed: no such section; there are path, extraction"),
    ],
)
def test_mistakes_cost_a_line(few_photographs, tmp_path, words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(["probe", "--work", str(tmp_path), "--out", str(tmp_path / "out"), *words])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert message in told
