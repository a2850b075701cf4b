"""The five datasets end to end: their exact layouts, their protocols, from the raw folder to the table."""

import json
from pathlib import Path

import downstream_small as small
import numpy as np
import pytest
import yaml
from conftest import quick_config
from PIL import Image

from pipeline.config import TransferConfig, load
from pipeline.config.protocol import SHIPPED
from pipeline.data.index import open_index
from pipeline.data.prepare import write_index
from pipeline.data.sources import read
from pipeline.data.sources.voc2007 import CLASSES as VOC_CLASSES
from pipeline.report import load as load_run
from pipeline.report import table, write
from pipeline.train import Job, fit
from pipeline.train.ranks import join
from pipeline.transfer.answers import Answers
from pipeline.transfer.backbone import Backbone
from pipeline.transfer.metrics import METRICS
from pipeline.transfer.modes import Stage
from pipeline.transfer.run import run
from pipeline.transfer.task import Task

SMALL = {
    "classes": 3,
    "resize": {"short_side": 32, "crop": 32, "interpolation": "bicubic"},
    "resize_trained": {"short_side": 36, "crop": 32, "interpolation": "bicubic"},
}
# What must be smaller where a collection is: not the split rules, the metric, or what is chosen by.
CHANGES = {
    "caltech101": {"validation": 15},
    "voc2007": {"classes": 20},
    "cub200": {"validation": 9},
    "aircraft": {},
    "cars": {"validation": 9},
}
SIZES = {  # training, validation, test
    "caltech101": (90, 24),
    "voc2007": (120, 60),
    "cub200": (36, 18),
    "aircraft": (36, 18),
    "cars": (36, 18),
}


def picture(shows: dict[str, list[int]]):
    """Draws a picture's classes, by its name or its folder's: each class one coloured bar, under noise."""

    def draw(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = shows.get(path.stem, shows.get(path.parent.name, []))
        seed = int.from_bytes("/".join(path.parts[-2:]).encode()[-8:], "big")
        pixels = np.random.default_rng(seed).normal(100, 20, (48, 40, 3))
        for label in labels:
            pixels[2 * (label % 20) : 2 * (label % 20) + 3, :, label % 3] += 130
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)

    return draw


def lay_out(name: str, root: Path) -> None:
    """Three classes of a collection (VOC: all twenty) as its publisher lays them out."""
    if name == "caltech101":
        counts = {"BACKGROUND_Google": 40, "accordion": 36, "anchor": 38}
        small.caltech101(root, counts, picture({key: [7 * i] for i, key in enumerate(counts)}))
    elif name == "voc2007":
        shown = {f"{n:06d}": [n % 20, n // 20 * 7 % 20] for n in range(180)}
        content = {}
        for split, numbers in (("train", range(60)), ("val", range(60, 120)), ("test", range(120, 180))):
            plain = {n: sorted({VOC_CLASSES[each] for each in shown[f"{n:06d}"]}) for n in numbers}
            hard = {n: [VOC_CLASSES[(n + 3) % 20]] if n % 4 == 0 else [] for n in numbers}
            content[split] = {
                f"{n:06d}": (plain[n], [each for each in hard[n] if each not in plain[n]]) for n in numbers
            }
        small.voc2007(root, content=content, draw=picture(shown))
    elif name == "cub200":
        pictures = {n: (1 + n % 3, int(n <= 36)) for n in range(1, 55)}
        folders = {bird: [7 * i] for i, bird in enumerate(small.BIRDS)}
        small.cub200(root, pictures=pictures, draw=picture(folders))
    elif name == "aircraft":
        variants, numbers = (
            small.VARIANTS[:3],
            {"train": range(18), "val": range(18, 36), "test": range(36, 54)},
        )
        content = {split: {f"{n:07d}": variants[n % 3] for n in each} for split, each in numbers.items()}
        small.aircraft(root, variants, content, picture({f"{n:07d}": [7 * (n % 3)] for n in range(54)}))
    else:
        content = {"train": [1 + n % 3 for n in range(36)], "test": [1 + n % 3 for n in range(18)]}
        small.cars(root, content=content, draw=picture({f"{n + 1:05d}": [7 * (n % 3)] for n in range(36)}))


@pytest.fixture(scope="module")
def world(tmp_path_factory, small_index):
    """A folder with the five indexes, their protocols with a variant 'small', and a checkpoint."""
    root = tmp_path_factory.mktemp("five")
    for name, changes in CHANGES.items():
        lay_out(name, root / "raw" / name)
        write_index(read(name, root / "raw" / name), root / "data" / name)
        protocol = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
        protocol["variants"] = {"small": SMALL | changes}
        (root / f"{name}.yaml").write_text(yaml.safe_dump(protocol))
    with join("cpu") as ranks:
        config = quick_config(small_index, root / "runs", train__epochs=2.0)
        fit(Job(config, ranks, open_index(small_index).split("train")))
    return root


def config(world: Path, names, modes, seeds: int = 1, frozen=None, **recipe) -> TransferConfig:
    recipe = {"optim": {"lr": 0.05}, "train": {"batch": 6, "epochs": 2, "device": "cpu"}} | recipe
    tree = {
        "name": "-".join([*modes, *names, *(frozen or ())]),
        "runs": str(world / "runs"),
        "checkpoint": str(world / "runs/quick"),
        "datasets": [
            {"protocol": f"{name}-small", "name": name, "index": str(world / "data" / name), "seeds": seeds}
            for name in names
        ],
        "pictures": {"size": 32},
        "loading": {"threads": 1},
        "modes": list(modes),
        "frozen": frozen or {},
        "finetuned": recipe,
        "scratch": recipe,
        "monitor": {"samples": 4},
    }
    (world / "config.yaml").write_text(yaml.safe_dump(tree))
    return load(TransferConfig, world / "config.yaml")


def test_all_five_frozen(world):
    whole = config(world, CHANGES, ["frozen"], seeds=2)
    with join("cpu") as ranks:
        results = run(whole, ranks)
    assert [each["dataset"] for each in results] == list(CHANGES)
    for each in results:
        name = each["dataset"]
        protocol = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
        assert {(row["n_train"], row["n_test"]) for row in each["results"]} == {SIZES[name]}
        for number, row in enumerate(each["results"]):
            assert (row["protocol"], row["metric"]) == (f"{name}-small", protocol["metric"])
            kept = Answers.read(whole.folder / "transfer" / name / f"frozen-{number}.npz")
            value = METRICS[row["metric"]](kept.labels, kept.answers, len(each["classes"]))
            assert row["value"] == value
            assert row["low"] <= value <= row["high"]
            assert "at_edge" in row["chosen"]
            assert kept.identity["pictures"]["eval_resize"] == 32
            assert kept.identity["pictures"]["interpolation"] == "bicubic"
        found = each["summary"]["frozen"]
        assert found["value"] == pytest.approx(np.mean([row["value"] for row in each["results"]]))
        assert found["low"] < found["value"] < found["high"] or found["value"] == 1
        assert found["value"] > (0.15 if name == "voc2007" else 0.5), "bars are easily seen"
    (voc,) = (each for each in results if each["dataset"] == "voc2007")
    assert len(voc["results"][0]["average_precision"]) == 20
    assert "confusion" not in voc["results"][0]
    # Nothing in VOC's or Aircraft's frozen protocol is drawn: one fit serves all seeds.
    assert voc["results"][0]["value"] == voc["results"][1]["value"]
    told = table(load_run(whole.folder).transfers)
    for word in ("11-point mAP", "mean per class", "top-1"):
        assert word in told
    assert write(whole.folder).exists()
    assert "at_edge" in (report := (whole.folder / "report.md").read_text())
    assert "(plots/samples-voc2007.png)" in report
    shown = load_run(whole.folder).transfer_samples["voc2007"]
    assert (shown.labels.shape, shown.predictions["frozen"].shape) == ((4, 20), (4,))
    mistakes = load_run(whole.folder).mistakes["voc2007"]["frozen"]
    said = np.take_along_axis(mistakes.labels, mistakes.predictions["frozen"][:, None], 1)
    assert (said == -1).all(), "neither shown nor hard to tell"
    assert (mistakes.confidence > 0.5).all()
    assert "path [[" not in report
    with join("cpu") as ranks:
        assert run(whole, ranks) == results


def test_nothing_is_chosen_by_the_labels_of_the_test(world):
    """Where the test is the rest of the pictures, its labels lie beside the others: they must not be used."""
    whole = config(world, ["caltech101"], ["frozen"])
    with join("cpu") as ranks:
        stage = Stage(whole, Backbone.read(whole.checkpoint), ranks)
        task = Task.open(whole.datasets[0], 0, "datasets.0")
        answers, chosen, _ = stage.frozen(task, 0)
        others = task.learned.labels.copy()
        others[task.draws[0].tested] = 0
        vars(task.learned)["labels"] = others
        again, chosen_again, _ = stage.frozen(task, 0)
    assert len(set(answers.tolist())) == 3
    assert np.array_equal(again, answers)
    assert chosen_again == chosen


def test_analyses_of_several_labels(world, capsys):
    """By mAP, of scores; nothing in VOC's protocol is drawn, so one fit serves both seeds; no shots."""
    asked = {"search": "halving", "neighbours": [3, 15], "shots": [1], "depths": ["stage2"], "map": 60}
    whole = config(world, ["voc2007", "aircraft"], ["frozen"], 2, asked)
    with join("cpu") as ranks:
        voc, aircraft = run(whole, ranks)
    assert "voc2007: frozen.shots is left out: several labels" in capsys.readouterr().err
    assert [each["kind"] for each in voc["analyses"]] == ["neighbours", "depth", "depth"]
    assert [each["kind"] for each in aircraft["analyses"]] == ["neighbours", "shots", "depth", "depth"]
    for each in voc["analyses"][:2]:
        assert each["metric"] == "map_11point"
        assert each["protocol"] == "voc2007-small"
        name = each["kind"] if each["x"] is None else f"{each['kind']}-{each['x']}"
        first, second = (
            Answers.read(whole.folder / f"transfer/voc2007/analyses/{name}-{number}.npz") for number in (0, 1)
        )
        assert np.array_equal(first.answers, second.answers)
        assert first.answers.shape == (60, 20)
        assert each["value"] == METRICS["map_11point"](first.labels, first.answers, 20)
        assert each["value"] > 0.15, "of 20 classes, a tenth each"
    chosen = voc["analyses"][0]["results"][0]["chosen"]
    assert chosen["by"] == "map_11point"
    assert chosen["val_score"] == max(score for _, score in chosen["path"])
    with np.load(whole.folder / "transfer/voc2007.map.npz", allow_pickle=False) as found:
        assert set(found["labels"]) > {-1}, "pictures of several classes have no colour"


@pytest.mark.parametrize("name", ["voc2007", "cars"])
def test_finetuned_and_from_scratch(world, name):
    whole = config(world, [name], ["finetuned", "scratch"])
    with join("cpu") as ranks:
        (result,) = run(whole, ranks)
    assert result["improvement"]["finetuned"]["value"] == pytest.approx(
        result["summary"]["finetuned"]["value"] - result["summary"]["scratch"]["value"]
    )
    for mode in ("finetuned", "scratch"):
        kept = Answers.read(whole.folder / "transfer" / name / f"{mode}-0.npz")
        assert kept.answers.shape == kept.labels.shape
        assert kept.identity["pictures"]["eval_resize"] == 36
        state = json.loads(json.dumps(kept.identity[mode]["train"]))
        assert state["epochs"] == 2


def test_voc_has_as_many_figures_as_variants(world):
    """ "VOC07 mAP" is not one number: from the same scores, what is difficult and the area decide."""
    raw = open_index(world / "data/voc2007").split("test", multilabel=True).labels
    scores = np.random.default_rng(0).normal(size=raw.shape) + raw
    ignored, negative = raw, np.where(raw == 0, np.int8(-1), raw)
    found = {
        (metric, word): METRICS[metric](labels, scores, 20)
        for metric in ("map_11point", "map_all_points")
        for word, labels in (("ignored", ignored), ("negative", negative))
    }
    assert len({round(value, 4) for value in found.values()}) == 4
    assert found["map_11point", "ignored"] > found["map_11point", "negative"]


def test_learning_rate_and_decay_are_chosen_on_validation(world):
    """By the protocol's metric, on the validation split alone; then trained anew on both and tested once."""
    grid = {"lr": [1e-7, 0.03, 1e30], "decay": [0.0, 1e-4]}
    whole = config(world, ["voc2007"], ["finetuned"], grid=grid)
    tested, seen = [], Stage._seen
    with join("cpu") as ranks, pytest.MonkeyPatch.context() as patch:
        stage = Stage(whole, Backbone.read(whole.checkpoint), ranks)
        task = Task.open(whole.datasets[0], 0, "datasets.0")
        patch.setattr(Stage, "_seen", lambda *words: tested.append(words[2:]) or seen(*words))
        answers, chosen, _ = stage.answers(task, "finetuned", 0)
        *trials, (train, test) = tested
        tested.clear()
        for file in (whole.folder / "transfer/voc2007").glob("*/grid/*/score.json"):
            kept = json.loads(file.read_text())
            del kept["pictures"]["pad_colour"], kept["tried"]["trust"]  # as by code that had no such keys
            file.write_text(json.dumps(kept))
        again, known, _ = stage.answers(task, "finetuned", 0)
    assert len(tested) == 1, "scores of the grid are kept"
    assert np.array_equal(answers, again)
    assert chosen == known
    home = whole.folder / "transfer/voc2007"
    assert len(list(home.glob("*/grid/*/score.json"))) == 6
    assert not list(home.glob("*/grid/*/checkpoints")), "and their checkpoints are not"
    paths = [task.learned.take(rows).table["path"].to_pylist() for rows in task.draws[0].choosing]
    assert len(trials) == 6
    for parts in trials:
        assert [part.table["path"].to_pylist() for part in parts] == paths
    assert (len(train), test.fingerprint) == (120, task.pool.fingerprint)
    assert answers.shape == (60, 20)
    pairs = [(lr, decay / lr) for lr in grid["lr"] for decay in (1e-4, 0.0)]
    assert [tuple(point[:2]) for point in chosen["path"]] == pairs
    assert [point[2] for point in chosen["path"][4:]] == [None, None], "diverged"
    best = max(chosen["path"][:4], key=lambda point: point[2])
    assert (chosen["lr"], chosen["weight_decay"], chosen["val_score"]) == tuple(best)
    assert chosen["lr"] > 1e-6, "which learns nothing"
