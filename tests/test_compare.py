"""Two models on the same pictures: the permutation test against scipy's, and launch.report's table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import door
from scipy import stats

from pipeline.config import UserError
from pipeline.report import compare, comparison_table, load
from pipeline.transfer.answers import Answers
from pipeline.transfer.metrics import METRICS, map_11point, mean_per_class, top1
from pipeline.transfer.permutation import exchanged, parts


def answered(rng, labels, share) -> np.ndarray:
    return np.where(rng.random(len(labels)) < share, labels, (labels + 1) % 4)


def test_for_top1_of_one_run_it_is_mcnemars_exact_test():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=300)
    a, b = answered(rng, labels, 0.8), answered(rng, labels, 0.73)
    apart = parts(top1, labels, a) - parts(top1, labels, b)
    wins, losses = (apart > 0).sum(), (apart < 0).sum()
    exact = stats.binomtest(int(wins), int(wins + losses)).pvalue
    assert exchanged(apart) == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 1e5) ** 0.5 + 1e-5)


@pytest.mark.parametrize("metric", [top1, mean_per_class])
def test_answers_exchanged_picture_by_picture_are_scipys_test(metric):
    """There the answers themselves are exchanged and the metric is computed anew."""
    rng = np.random.default_rng(1)
    labels = np.sort(rng.choice(4, p=[0.6, 0.3, 0.07, 0.03], size=200))
    a, b = answered(rng, labels, 0.85), answered(rng, labels, 0.78)
    apart = parts(metric, labels, a) - parts(metric, labels, b)
    assert apart.sum() == pytest.approx(metric(labels, a, 4) - metric(labels, b, 4), abs=1e-12)

    def statistic(x, y):
        return metric(labels, x.astype(int), 4) - metric(labels, y.astype(int), 4)

    want = stats.permutation_test(
        (a, b), statistic, permutation_type="samples", n_resamples=4000, vectorized=False, rng=0
    ).pvalue
    assert exchanged(apart) == pytest.approx(want, abs=4 * (want * (1 - want) / 4000) ** 0.5 + 1e-3)


def test_of_several_labels_it_is_their_accuracy_and_hard_ones_are_left_out():
    targets = np.array([[1, -1, 0, 1], [-1, -1, -1, -1], [0, 0, 0, 0]], np.int8)
    scores = np.array([[2.0, 1, 9, -1], [-1, -1, -1, 3], [1, 1, 1, 1]])
    assert parts(map_11point, targets, scores) * 3 == pytest.approx([1 / 3, 3 / 4, 0])


def test_without_a_difference_p_is_uniform_and_with_one_it_is_small():
    rng = np.random.default_rng(2)
    labels = np.zeros(250, int)
    p = [
        exchanged(parts(top1, labels, a) - parts(top1, labels, b), draws=400)
        for a, b in ((answered(rng, labels, 0.7), answered(rng, labels, 0.7)) for _ in range(400))
    ]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p) <= level) < level + 3.5 * (level * (1 - level) / 400) ** 0.5
    assert np.mean(np.array(p) <= 0.5) > 0.3
    sure = parts(top1, labels, answered(rng, labels, 0.9)) - parts(top1, labels, answered(rng, labels, 0.6))
    assert exchanged(sure) == 1 / 100_001
    assert exchanged(np.zeros(10)) == 1.0
    assert exchanged(-sure) == exchanged(sure)


# --- launch.report ----------------------------------------------------------------------------------------


def transferred(folder: Path, share: float, *, seeds=3, seed=0, metric="top1", n=400) -> Path:
    """A run's folder with kept answers to one dataset's test pictures."""
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(9).integers(4, size=n)
    if METRICS[metric].multilabel:
        labels = np.random.default_rng(9).choice([-1, 0, 1], size=(n, 4)).astype(np.int8)
    home = folder / "transfer" / "birds"
    home.mkdir(parents=True)
    rows = []
    for number in range(seeds):
        if METRICS[metric].multilabel:
            answers = (labels * share + rng.normal(size=labels.shape)).astype(np.float32)
        else:
            answers = answered(rng, labels, share)
        identity = {"seed": number, "test": "pictures"}
        Answers(answers, labels, np.arange(n), {}, identity).keep(home / f"frozen-{number}.npz")
        value = METRICS[metric](labels, answers, 4)
        rows.append({"mode": "frozen", "metric": metric, "value": value, "seed": number})
    mean = float(np.mean([row["value"] for row in rows]))
    cell = {"value": mean, "low": mean, "high": mean, "seeds": seeds}
    result = {"dataset": "birds", "classes": list("abcd"), "results": rows, "summary": {"frozen": cell}}
    (folder / "transfer" / "birds.json").write_text(json.dumps(result))
    (folder / "transfer" / "config.yaml").write_text(yaml.safe_dump({"name": folder.name}))
    return folder


@pytest.mark.parametrize("metric", ["top1", "mean_per_class", "map_11point"])
def test_runs_are_compared_with_the_first(tmp_path, metric):
    shares = (0.5, 0.51, 0.8) if metric != "map_11point" else (0.5, 0.51, 2)
    runs = [
        load(transferred(tmp_path / f"r{i}", each, seed=i, metric=metric)) for i, each in enumerate(shares)
    ]
    alike, better = compare(runs)
    assert (alike.run, alike.other, alike.mode, alike.dataset) == ("r1", "r0", "frozen", "birds")
    assert float(alike.p) > 0.02
    assert better.p == "< 0.0001"
    low = float(better.difference.split("[")[1].split(",")[0])
    assert low > 0
    table = comparison_table([alike, better])
    assert table.count("| birds |") == 2
    assert "cannot be exchanged" in table


def test_only_answers_to_the_same_question_are_paired(tmp_path):
    first = load(transferred(tmp_path / "a", 0.5))
    assert compare([first]) == []
    for number, other in enumerate(({"n": 300}, {"seeds": 2}, {"metric": "mean_per_class"})):
        assert compare([first, load(transferred(tmp_path / f"b{number}", 0.5, **other))]) == []
    kept = tmp_path / "c"
    transferred(kept, 0.6)
    (kept / "transfer/birds/frozen-1.npz").write_bytes(b"PK cut off")
    with pytest.raises(UserError, match=r"frozen-1\.npz: no answers as launch\.transfer keeps them"):
        compare([first, load(kept)])


def test_answers_of_an_earlier_run_of_more_seeds_take_no_part(tmp_path):
    """They stay in the folder, and may be of another recipe."""
    first, second = (transferred(tmp_path / name, share) for name, share in (("a", 0.5), ("b", 0.8)))
    before = compare([load(first), load(second)])
    for number in (3, 4):
        shutil.copy(first / "transfer/birds/frozen-0.npz", second / f"transfer/birds/frozen-{number}.npz")
    assert compare([load(first), load(second)]) == before != []


def test_the_door_prints_p_below_the_table_of_both(tmp_path):
    folders = [str(transferred(tmp_path / name, share)) for name, share in (("a", 0.5), ("b", 0.8))]
    got = door("launch.report", *folders)
    assert got.returncode == 0, got.stderr
    assert "| birds | top-1 | frozen | b | a | +" in got.stdout
    assert "< 0.0001" in got.stdout
