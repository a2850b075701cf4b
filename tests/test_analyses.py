"""What is asked of frozen features: neighbours, few pictures, depths, resolutions, a map."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import drawn_pictures, torchrun
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from pipeline.config import TransferConfig, UserError, dump, parse
from pipeline.data.prepare import write_index
from pipeline.data.sources import Source
from pipeline.models import build
from pipeline.preempt import STOP, Preempted
from pipeline.train.ranks import join
from pipeline.transfer.analyses import Analysis, _identity, check_analyses, planned
from pipeline.transfer.answers import Answers
from pipeline.transfer.atlas import SEVERAL, places
from pipeline.transfer.backbone import LAST, Backbone, Frozen
from pipeline.transfer.frozen import few, nearest, probed
from pipeline.transfer.modes import Stage
from pipeline.transfer.run import run
from pipeline.transfer.subsets import few_shot
from pipeline.transfer.task import Task

ASKED = {
    "search": "halving",
    "neighbours": [1, 5],
    "shots": [4, 1],
    "draws": 3,
    "depths": ["stage3", "stage1"],
    "resolutions": [48, 32],
    "map": 20,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with a ResNet-8 of random weights, and an index of three classes, 60 pictures and 45."""
    root = tmp_path_factory.mktemp("analyses")
    torch.manual_seed(0)
    model = build("resnet8", 5).train()
    for seed in range(3):
        model(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed)))
    torch.save(model.state_dict(), root / "weights.pth")
    splits = {"train": drawn_pictures(60, 3, 10), "test": drawn_pictures(45, 3, 11)}
    write_index(Source("other", list("xyz"), splits), root / "index")
    return root


def tree(world: Path, frozen: dict, **dataset) -> dict:
    recipe = {"optim": {"lr": 0.05}, "train": {"batch": 6, "epochs": 2}}
    about = {"name": "other", "index": str(world / "index"), "validation": 0.25, "seeds": 2}
    return {
        "name": "moved",
        "runs": str(world / "runs"),
        "checkpoint": str(world / "weights.pth"),
        "model": {"name": "resnet8"},
        "datasets": [about | {"per_class": 8} | dataset],
        "modes": ["frozen"],
        "pictures": {"size": 32, "crop": "pad", "eval_resize": 32},
        "loading": {"threads": 1},
        "batch": 20,
        "frozen": frozen,
        "finetuned": recipe,
        "scratch": recipe,
        "monitor": {"samples": 5},
    }


@pytest.fixture(scope="module")
def done(world):
    """(config, result, forward passes) of a run that was asked for everything."""
    config = parse(TransferConfig, tree(world, ASKED), "test")
    passes, real = [], Frozen.at
    with join("cpu") as ranks, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Frozen, "at", lambda *words: passes.append(words[2]) or real(*words))
        (result,) = run(config, ranks)
    return config, result, passes


def stage_of(config: TransferConfig, ranks) -> tuple[Stage, Task]:
    backbone = Backbone.read(config.checkpoint, name="resnet8")
    return Stage(config, backbone, ranks), Task.open(config.datasets[0], 0, "d")


def figures(result: dict) -> dict:
    return {(each["kind"], each["x"]): each for each in result["analyses"]}


def test_every_figure_is_in_the_result(done):
    config, result, _ = done
    assert json.loads((config.folder / "transfer" / "other.json").read_text()) == result
    found = figures(result)
    assert list(found) == [
        ("neighbours", None), ("shots", 1), ("shots", 4), ("depth", "stage1"), ("depth", "stage3"),
        ("depth", LAST), ("resolution", 32), ("resolution", 48),
    ]  # fmt: skip
    for (kind, x), each in found.items():
        own = (kind, x) in (("depth", LAST), ("resolution", 32))
        seeds = 3 if kind == "shots" else 2
        assert each["metric"] == "top1"
        assert each["n_train"] == (3 * x if kind == "shots" else 24)
        assert each["seeds"] == seeds
        if own:
            assert {key: each[key] for key in ("value", "low", "high")} == {
                key: result["summary"]["frozen"][key] for key in ("value", "low", "high")
            }
            assert each["mode"] == "frozen"
            continue
        assert [row["seed"] for row in each["results"]] == list(range(seeds))
        values = [row["value"] for row in each["results"]]
        assert each["value"] == pytest.approx(np.mean(values))
        assert each["low"] <= each["value"] <= each["high"]
        for number, row in enumerate(each["results"]):
            name = kind if x is None else f"{kind}-{x}"
            name += f"-{number}" if number < 2 else f"-{number}-of-{number % 2}"
            kept = Answers.read(config.folder / f"transfer/other/analyses/{name}.npz")
            assert row["value"] == np.mean(kept.answers == kept.labels)
            assert row["low"] <= row["value"] <= row["high"]
            assert row["chosen"] == json.loads(json.dumps(kept.chosen))
    # A ResNet's last stage, averaged over positions, is what its head sees.
    assert found["depth", "stage3"]["value"] == found["depth", LAST]["value"]
    assert 7 <= len(result["results"][0]["chosen"]["path"]) <= 15


def test_all_depths_come_from_one_pass_and_each_resolution_from_one(done):
    config, _, passes = done
    used = {row for draw in stage_of(config, None)[1].draws for row in draw.rows}
    batches = -(-len(used) // 20) + 3
    assert len(passes) == 2 * batches
    assert set(passes[:batches][0]) == {LAST, "stage1", "stage3"}


def test_other_resolutions_scale_the_short_side_along(done, world):
    config, *_ = done
    kept = Answers.read(config.folder / "transfer/other/analyses/resolution-48-0.npz")
    assert [kept.identity["pictures"][key] for key in ("eval_size", "eval_resize")] == [48, 48]
    with join("cpu") as ranks:
        stage, task = stage_of(config, ranks)
        seen = stage.seen(task, config.pictures.model_copy(update={"eval_size": 48, "eval_resize": 48}))[LAST]
        answers, *_ = probed(seen, 0, "halving", "")
    assert np.array_equal(answers, kept.answers)
    resize = {"short_side": 40, "crop": 32, "interpolation": "bicubic"}
    other = parse(TransferConfig, tree(world, ASKED, resize=resize), "test")
    identity = _identity(stage, Task.open(other.datasets[0], 0, "d"), Analysis("resolution", 48, 2), 0)
    shown = {key: identity["pictures"][key] for key in ("eval_size", "eval_resize", "interpolation")}
    assert shown == {"eval_size": 48, "eval_resize": 60, "interpolation": "bicubic"}


def test_neighbours_and_shots_are_scikit_learns_on_the_right_pictures(done):
    config, result, _ = done
    found = figures(result)
    with join("cpu") as ranks:
        stage, task = stage_of(config, ranks)
        seen = stage.seen(task, config.pictures)[LAST]
    labels = task.learned.labels
    for number, row in enumerate(found["neighbours", None]["results"]):
        drawn = task.draws[number]

        def said(known, pictures, k):
            weigh = lambda distance: np.exp((1 - distance) / 0.07)  # noqa: E731
            model = KNeighborsClassifier(k, weights=weigh, metric="cosine", algorithm="brute")
            return model.fit(seen.at(known), labels[known]).predict(pictures)

        chosen = row["chosen"]
        path = [
            [k, float(np.mean(said(drawn.fit, seen.at(drawn.chosen_on), k) == labels[drawn.chosen_on]))]
            for k in (1, 5)
        ]
        assert chosen["path"] == path
        assert chosen["k"] == max(path, key=lambda point: (point[1], point[0]))[0]
        kept = Answers.read(config.folder / f"transfer/other/analyses/neighbours-{number}.npz")
        assert np.array_equal(kept.answers, said(drawn.rows, seen.tested(number), chosen["k"]))
    for number in range(3):  # the third draw takes the first seed's pictures again, but others of them
        rows = task.draws[number % 2].rows
        rows = rows[few_shot(labels[rows], 4, number, 3, of_drawn=True)]
        unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (seen.at(rows), seen.pool)]
        theirs = LogisticRegression(C=1.0, tol=1e-9, max_iter=10_000).fit(unit[0], labels[rows])
        name = f"shots-4-{number}" if number < 2 else "shots-4-2-of-0"
        kept = Answers.read(config.folder / f"transfer/other/analyses/{name}.npz")
        assert np.mean(kept.answers == theirs.predict(unit[1])) > 0.97


def test_nothing_is_chosen_by_the_labels_of_the_test(world):
    """Where the test is the rest of the pictures, its labels lie beside the others: they must not be used."""
    config = parse(TransferConfig, tree(world, {}, test="rest"), "test")
    with join("cpu") as ranks:
        stage, task = stage_of(config, ranks)
        seen = stage.seen(task, config.pictures)[LAST]
    asked = [
        lambda: nearest(seen, 0, [1, 5]),
        lambda: few(seen, 0, 4, 7),
        lambda: probed(seen, 0, "halving", ""),
    ]
    before = [each() for each in asked]
    others = task.learned.labels.copy()
    others[task.draws[0].tested] = 0
    vars(task.learned)["labels"] = others
    for (answers, chosen, _), again in zip(before, (each() for each in asked), strict=True):
        assert len(set(answers.tolist())) > 1
        assert np.array_equal(again[0], answers)
        assert again[1] == chosen


def test_a_lost_answer_alone_is_computed_again_and_other_questions_are_refused(done):
    config, result, _ = done
    folder = config.folder / "transfer" / "other" / "analyses"
    stamps = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    lost = folder / "shots-4-1.npz"
    lost.unlink()
    with join("cpu") as ranks:
        (again,) = run(config, ranks)
        assert again == result
        assert {file for file in folder.iterdir() if file.stat().st_mtime_ns != stamps[file]} == {lost}
        wrong = config.model_copy(update={"frozen": config.frozen.model_copy(update={"neighbours": [1, 3]})})
        with pytest.raises(UserError, match=r"neighbours.*: .*but .*neighbours-0\.npz was made with"):
            run(wrong, ranks)


def test_with_more_seeds_or_fewer_draws_of_shots_are_of_other_pictures(done):
    config, result, _ = done
    shutil.copytree(config.folder, config.folder.with_name("grown"))
    asked = config.frozen.model_copy(update={"depths": [], "resolutions": [], "map": None})
    for seeds, names in (3, ["0", "1", "2"]), (2, ["0", "1", "2-of-0"]):
        (dataset,) = config.datasets
        datasets = [dataset.model_copy(update={"seeds": seeds})]
        with join("cpu") as ranks:
            changes = {"name": "grown", "datasets": datasets, "frozen": asked}
            (found,) = run(config.model_copy(update=changes), ranks)
        folder = config.folder.with_name("grown") / "transfer" / "other" / "analyses"
        assert all((folder / f"shots-4-{name}.npz").exists() for name in names)
        shots = {each["x"]: each for each in found["analyses"] if each["kind"] == "shots"}
        assert [row["seed"] for row in shots[4]["results"]] == [0, 1, 2]
    before = {each["x"]: each for each in result["analyses"] if each["kind"] == "shots"}
    assert shots == before


def test_a_job_that_is_stopped_in_between_keeps_what_it_has(done, monkeypatch):
    config, result, _ = done
    monkeypatch.setattr(STOP, "why", "")  # and again after the test
    names = ("shots-1-0", "shots-1-1", "shots-1-2-of-0")
    files = [config.folder / f"transfer/other/analyses/{name}.npz" for name in names]
    for file in files:
        file.unlink()
    asked = []

    def stopping(*words):
        asked.append(words)
        STOP.why = "SIGTERM" if len(asked) == 2 else ""
        return few(*words)

    monkeypatch.setattr("pipeline.transfer.analyses.few", stopping)
    with join("cpu") as ranks:
        with pytest.raises(Preempted, match="before other shots-1, run 2"):
            run(config, ranks)
        assert [file.exists() for file in files] == [True, True, False]
        STOP.why = ""
        assert run(config, ranks) == [result]
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("frozen", "dataset", "message"),
    [
        ({"neighbours": [19]}, {}, "frozen.neighbours: 19, but other has 18 pictures .*; give at most 18"),
        ({"shots": [1, 9]}, {}, "frozen.shots: 9, but class 'x' of other has 8 training pictures"),
        ({"depths": ["stage4"]}, {}, "frozen.depths: 'stage4': resnet8 has stage1, stage2, stage3$"),
        ({"depths": ["head"]}, {}, "frozen.depths: 'head'"),
        ({"resolutions": [3]}, {}, "frozen.resolutions: 3: resnet8 makes one position of 4 pixels"),
        ({"map": 10}, {"test_per_class": 3}, "frozen.map: other has 9 test pictures"),
        ({"map": 5000}, {}, "frozen.map: .*less than or equal to 2000"),
        ({"shots": [5, 5]}, {}, "frozen.shots: 5 stands there twice"),
        ({"shots": [0]}, {}, "frozen.shots.0: .*greater than 0"),
        ({"search": "grid"}, {}, "frozen.search: "),
        ({"neighbors": [1]}, {}, "frozen.neighbors: no such key; did you mean frozen.neighbours"),
    ],
)
def test_mistakes_are_a_line_before_anything_is_computed(world, frozen, dataset, message):
    words = tree(world, frozen, **dataset) | {"name": "wrong"}
    with join("cpu") as ranks, pytest.raises(UserError, match=message) as told:
        run(parse(TransferConfig, words, "test"), ranks)
    assert "\n" not in str(told.value)
    assert not (world / "runs" / "wrong").exists()


def test_mistakes_of_the_config_alone(world):
    words = tree(world, {"map": 10}) | {"modes": ["scratch"]}
    with pytest.raises(UserError, match=r"frozen\.map: modes leaves frozen out"):
        parse(TransferConfig, words, "test")
    words = tree(world, {"resolutions": [48]})
    words["pictures"]["eval_resize"] = None
    with pytest.raises(UserError, match=r"frozen\.resolutions: other is shown at its own scale"):
        parse(TransferConfig, words, "test")
    several = {"metric": "map_11point", "difficult": "ignored", "choose_by": "metric", "val": "val"}
    several |= {"validation": None, "per_class": None}
    with pytest.raises(UserError, match=r"frozen\.shots: several labels a picture"):
        parse(TransferConfig, tree(world, {"shots": [1]}, **several), "test")
    parsed = parse(TransferConfig, tree(world, ASKED), "test")
    assert parse(TransferConfig, yaml.safe_load(dump(parsed)), "test") == parsed


def test_a_position_of_the_last_stage_is_as_many_pixels_as_told():
    for name in ("vgg11", "resnet18", "resnet8"):
        with torch.device("meta"):
            model, pictures = build(name, 2).eval(), torch.empty(1, 3, 64, 64)
        sides = []
        last = model.get_submodule(model.stages[-1])
        last.register_forward_hook(lambda _, __, out, sides=sides: sides.append(out.shape[-1]))
        model.depths(pictures)
        assert 64 // sides[0] == model.pattern.stride, name


def test_a_map_keeps_what_is_near_together_and_comes_out_the_same(done):
    config, *_ = done
    file = config.folder / "transfer" / "other.map.npz"
    with np.load(file, allow_pickle=False) as found:
        assert found["places"].shape == (20, 2)
        assert found["places"].dtype == np.float32
        assert set(found["labels"]) == {0, 1, 2}
        assert "t-SNE" in str(found["method"])
    stamp = file.stat().st_mtime_ns
    with join("cpu") as ranks:
        run(config, ranks)
    assert file.stat().st_mtime_ns == stamp
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (4 * rng.normal(size=(3, 64))[labels] + rng.normal(size=(60, 64))).astype(np.float32)
    shown = places(features)
    assert np.array_equal(places(features), shown)
    near = NearestNeighbors(n_neighbors=2).fit(shown).kneighbors(shown)[1][:, 1]
    assert (labels[near] == labels).all()
    assert SEVERAL not in labels


def test_several_seeds_of_one_draw_are_one_fit(world):
    """VOC's and Aircraft's way: published splits, so nothing frozen is random but the shots."""
    config = parse(TransferConfig, tree(world, ASKED), "test")
    with join("cpu") as ranks:
        stage, task = stage_of(config, ranks)
    kinds = [each.kind for each in planned(stage, task)]
    assert kinds == ["neighbours", "shots", "shots", "depth", "depth", "resolution"]
    check_analyses(config, [task], None)  # the checkpoint may not be there yet


@pytest.mark.slow
def test_two_ranks_give_the_same(done, world):
    _, result, _ = done
    words = tree(world, ASKED) | {"runs": str(world / "two")}
    (world / "two.yaml").write_text(yaml.safe_dump(words))
    _, told = (process := torchrun(2, "-m", "launch.transfer", str(world / "two.yaml"))).communicate()
    assert process.returncode == 0, told
    found = json.loads((world / "two" / "moved" / "transfer" / "other.json").read_text())
    for ours, theirs in zip(found["analyses"], result["analyses"], strict=True):
        assert (ours["kind"], ours["x"]) == (theirs["kind"], theirs["x"])
        assert ours["value"] == pytest.approx(theirs["value"], abs=0.05)  # features round otherwise
