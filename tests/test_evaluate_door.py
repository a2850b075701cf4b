"""launch.evaluate: a classifier's own head on a split, once."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import config_tree, door, drawn_pictures, quick_config, torchrun
from jobs import damage, photographs
from odd_pictures import encoded, photograph
from test_models_torchvision import random_state
from torch.nn import functional as F

from pipeline.config import TrainConfig, parse
from pipeline.data.index import open_index
from pipeline.data.prepare import write_index
from pipeline.data.sources import Files, Pixels, Source
from pipeline.export import export
from pipeline.files import sha256
from pipeline.models import build
from pipeline.monitor.metrics import read_rows
from pipeline.train import checkpoint
from pipeline.train.evaluate import _before
from pipeline.train.ranks import join
from pipeline.train.run import run as train

FIGURES = ("n_test", "faults", "top1", "mean_per_class", "loss")
RAW = ("eval_resize=null", "eval_size=32")
"""As pictures of 32x32 are shown."""


@pytest.fixture(scope="module")
def trained(small_index, tmp_path_factory) -> Path:
    """A run's folder: a ResNet-8 that learned five classes, its moving average, and a row of its test."""
    runs = tmp_path_factory.mktemp("trained")
    changes = {"train__epochs": 1.0, "train__ema": 0.5, "data__test": "test"}
    with join("cpu") as ranks:
        train(quick_config(small_index, runs, **changes), ranks)
    return runs / "quick"


@pytest.fixture(scope="module")
def eight(tmp_path_factory) -> tuple[Path, Path]:
    """An index of 43 pictures of eight classes, unevenly many of each, and a file of weights for them."""
    folder = tmp_path_factory.mktemp("eight")
    drawn = drawn_pictures(60, 8, 20)
    kept = np.flatnonzero((drawn.labels < 3) | (np.arange(60) % 3 > 0))
    pictures = Pixels(drawn.pixels[kept], drawn.labels[kept])
    write_index(Source("eight", list("abcdefgh"), {"test": pictures}), folder / "index")
    torch.save(random_state(build("resnet8", 8), 4), folder / "random.pth")
    return folder / "index", folder / "random.pth"


def evaluated(folder: Path, *words) -> tuple[dict, str]:
    """What is kept as JSON, and what is printed."""
    got = door("launch.evaluate", *map(str, words), "--json", str(folder / "found.json"))
    assert got.returncode == 0, got.stderr
    return json.loads((folder / "found.json").read_text()), got.stdout


def figures(found: dict) -> dict:
    return {key: found[key] for key in FIGURES}


def test_it_says_what_the_runs_own_test_said(trained, small_index, tmp_path):
    (row,) = [row for row in read_rows(trained / "metrics.jsonl") if row["split"] == "test"]
    raw, printed = evaluated(tmp_path, trained, small_index)
    average, _ = evaluated(tmp_path, trained, small_index, "--ema")
    for found, key in ((raw, ""), (average, "ema_")):
        assert found["top1"]["value"] == row[f"{key}top1"]
        assert found["loss"] == pytest.approx(row[f"{key}loss"], rel=1e-5)
        assert found["top1"]["low"] < found["top1"]["value"] < found["top1"]["high"]
        assert found["mean_per_class"]["value"] == pytest.approx(row[f"{key}top1"]), "14 pictures a class"
        assert "top5" not in found, "of five classes all are among the first five"
    assert raw["loss"] != average["loss"]
    assert (raw["ema"], average["ema"]) == (False, True)
    file = checkpoint.latest(trained)
    assert (raw["checkpoint"], raw["checkpoint_sha256"]) == (str(file), sha256(file))
    assert raw["fingerprint"] == open_index(small_index).split("test").fingerprint
    assert (raw["pictures"]["eval_resize"], raw["pictures"]["side"]) == (None, 32)
    assert {"python", "torch", "dali"} <= raw["code"].keys()
    assert f"top-1           {100 * row['top1']:6.2f}  [" in printed
    assert "70 pictures, 5 classes" in printed
    assert "does not" not in printed, "the checkpoint says how pictures are shown, and its classes"


def test_two_ranks_find_the_same(trained, small_index, tmp_path):
    one, _ = evaluated(tmp_path, trained, small_index, "--batch", "16")
    words = (str(trained), str(small_index), "--batch", "16", "--json", str(tmp_path / "two.json"))
    process = torchrun(2, "-m", "launch.evaluate", *words)
    _, told = process.communicate(timeout=900)
    assert process.returncode == 0, told
    two = json.loads((tmp_path / "two.json").read_text())
    assert two == one | {"loss": two["loss"]}
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-6), "ranks have other numbers of threads"


def test_exported_weights_score_the_same(trained, small_index, tmp_path):
    own, _ = evaluated(tmp_path, trained, small_index)
    export(trained, "safetensors", tmp_path / "net.safetensors")
    exported, printed = evaluated(tmp_path, tmp_path / "net.safetensors", small_index)
    assert figures(exported) == figures(own)
    assert "does not" not in printed
    torch.save(checkpoint.read(trained)["model"], tmp_path / "net.pth")
    bare, printed = evaluated(tmp_path, tmp_path / "net.pth", small_index, *RAW, "model.name=resnet8")
    assert figures(bare) == figures(own)
    assert "the file does not say how it was shown pictures: as usual for ImageNet" in printed
    assert "the file does not name its classes: taken to be in the index's order\n" in printed


def test_figures_are_those_of_a_plain_pass(eight, tmp_path):
    index, weights = eight
    found, printed = evaluated(tmp_path, weights, index, *RAW, "model.name=resnet8", "mean=[0.5,0.4,0.3]")
    split = open_index(index).split("test")
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.229, 0.224, 0.225])
    images = ((torch.from_numpy(np.array(split.pixels[:])) / 255 - mean) / std).permute(0, 3, 1, 2)
    model = build("resnet8", 8).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    with torch.inference_mode():
        logits = model(images)
    labels = split.labels
    ranked = np.argsort(-logits.numpy(), axis=1)  # (N, C)
    right = ranked == labels[:, None]
    assert found["n_test"] == len(labels)
    assert found["top1"]["value"] == pytest.approx(right[:, 0].mean())
    assert found["top5"]["value"] == pytest.approx(right[:, :5].any(axis=1).mean())
    assert 0 < found["top1"]["value"] < found["top5"]["value"] < 1
    each = [right[labels == name, 0].mean() for name in range(8)]
    assert found["mean_per_class"]["value"] == pytest.approx(np.mean(each))
    assert found["mean_per_class"]["value"] != pytest.approx(found["top1"]["value"], abs=1e-6)
    loss = F.cross_entropy(logits, torch.from_numpy(labels.astype(np.int64)))
    assert found["loss"] == pytest.approx(float(loss), rel=1e-4)
    assert f"top-5           {100 * found['top5']['value']:6.2f}  [" in printed
    assert f"cross-entropy   {found['loss']:.4f}" in printed


def test_classes_before_the_label_are_counted_as_argmax_counts():
    nan = float("nan")
    logits = torch.tensor([[1.0, 3, 2, 3], [1, 3, 2, 3], [0, 0, 0, 0], [0, 0, 0, 0], [nan, nan, nan, nan]])
    labels = torch.tensor([3, 1, 0, 3, 2])
    assert _before(logits, labels).tolist() == [1, 0, 0, 3, 4]
    drawn = torch.randint(0, 4, (200, 9), generator=torch.manual_seed(0)).float()
    labels = torch.arange(200) % 9
    assert torch.equal(_before(drawn, labels) == 0, drawn.argmax(dim=1) == labels)


def test_bad_files_are_counted_and_named(tmp_path):
    job = photographs(tmp_path)
    torch.save(random_state(build("resnet8", 4), 4), tmp_path / "net.pth")
    damage(job, 17)
    words = (str(tmp_path / "net.pth"), str(job / "index"), "--split", "val", "model.name=resnet8")
    shown = ("eval_resize=40", "eval_size=32", "--json", str(tmp_path / "out.json"))
    got = door("launch.evaluate", *words, *shown)
    assert got.returncode == 0, got.stderr
    assert "017.jpg: cannot be decoded; it is left out of the evaluation" in got.stderr
    assert "val: 29 pictures, 4 classes\n1 more could not be shown; they count in no figure\n" in got.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["faults"] == [{"path": "017.jpg", "reason": "cannot be decoded"}]
    assert found["n_test"] == 29


@pytest.fixture(scope="module")
def wrong(trained, eight, tmp_path_factory) -> dict[str, Path]:
    """Files and indexes that do not go together."""
    folder = tmp_path_factory.mktemp("wrong")
    write_index(Source("drawn", list("abdce"), {"test": drawn_pictures(10, 5, 3)}), folder / "renamed")
    write_index(Source("drawn", list("abcde"), {"test": drawn_pictures(1, 1, 3)}), folder / "single")
    weights = checkpoint.read(trained)["model"]
    headless = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    torch.save(headless, folder / "headless.pth")
    torch.save(weights | {"fc.bias": weights["fc.bias"] * float("nan")}, folder / "nan.pth")
    config = config_tree(Path("index"), Path("runs"), model={"name": "vgg11", "width": 0.05})
    state = {"config": parse(TrainConfig, config, "vgg").model_dump(), "classes": list("abcde")}
    small = random_state(build("vgg11", 5, width=0.05), 1)
    checkpoint.save(folder / "vgg" / "checkpoints", 1, state | {"model": small}, keep=1)
    found = {each.name.partition(".")[0]: each for each in folder.iterdir()}
    return found | {"several": several_labels(folder / "several"), "folder": folder, "eight": eight[1]}


def several_labels(folder: Path) -> Path:
    """An index of five photographs; each may have several of five labels."""
    folder.mkdir()
    names = [f"{number}.jpg" for number in range(5)]
    for name in names:
        (folder / name).write_bytes(encoded(photograph(np.random.default_rng(1), 40, 40)))
    targets = np.where(np.eye(5), 1, -1).astype(np.int8)
    write_index(Source("several", list("abcde"), {"test": Files(folder, names, targets)}), folder / "index")
    return folder / "index"


def test_mistakes_cost_a_line_each(trained, small_index, other_index, wrong, tmp_path):
    own, random = checkpoint.latest(trained), wrong["eight"]
    named = "model.name=resnet8"
    for words, told in {
        (trained, other_index): f"checkpoint: the head of {own} has 5 classes, {other_index} has 3; "
        "give an index of the head's own classes",
        (trained, wrong["renamed"]): f"checkpoint: class 2 of {own} is 'c', in {wrong['renamed']} it is 'd'; "
        "give an index of the head's own classes in their order",
        (wrong["headless"], small_index, named): f"checkpoint: {wrong['headless']} holds no head, only what "
        "stands before it; see launch.transfer",
        (trained, small_index, "--split", "tset"): f"--split: {small_index} has no split 'tset', only train, "
        "val, test",
        (trained, tmp_path): f"INDEX: no index in {tmp_path}; make one: python -m launch.prepare SOURCE "
        f"--root DIR --out {tmp_path}",
        (trained, wrong["several"]): f"--split: {wrong['several']} has several labels a picture; here each "
        "must have one",
        (tmp_path / "no.pth", small_index): f"checkpoint: {tmp_path / 'no.pth'}: no such checkpoint",
        (random, small_index): f"checkpoint: {random}: its tensors fit resnet8 or plain8; say which with "
        "model.name",
        (trained, small_index, "model.nmae=x"): "model: nmae: no such key; did you mean name?",
        (
            trained,
            small_index,
            "eval_resiez=9",
        ): "pictures: eval_resiez: no such key; did you mean eval_resize?",
        (
            trained,
            small_index,
            "eval_resize=24",
        ): "pictures: eval_resize: 24 is smaller than the evaluation crop 32; give at least 32, or null",
        (trained, small_index, "flip=0.0"): "flip=0.0: only training reads flip; an evaluation reads size, "
        "eval_size, eval_resize, interpolation, pad_colour, mean, std",
        (wrong["vgg"], small_index, "eval_size=16"): "pictures.eval_size: vgg11 needs 32 or more, not 16",
        (trained, small_index, "--json", tmp_path): f"--json {tmp_path}: is a folder; name a file",
        (trained, small_index, "--batch", 0): "--batch 0: give 1 or more",
        (trained, wrong["single"]): "--split test: 1 picture could be shown; an interval needs 2 or more",
        (wrong["nan"], small_index, named, *RAW): f"checkpoint: {wrong['nan']}: its answers are not finite; "
        "the weights diverged",
    }.items():
        got = door("launch.evaluate", *map(str, words))
        assert (got.returncode, got.stdout) == (2, ""), words
        *before, line = got.stderr.splitlines()
        assert line == f"error: {told}"
        assert not before or before[0].startswith("evaluate: "), "what a pass says of itself"
