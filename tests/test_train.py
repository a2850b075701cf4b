"""The loop, its arithmetic, its checkpoints, and two ranks against one."""

import gc
import json
import math
import re
import runpy
import sys
import weakref

import numpy as np
import pytest
import torch
import yaml
from conftest import config_tree, door, quick_config, torchrun
from hypothesis import given
from hypothesis import strategies as st
from jobs import back_to_the_first

from pipeline.config import TrainConfig, UserError, dump, load
from pipeline.data.index import open_index
from pipeline.machine import hardware
from pipeline.models import build
from pipeline.models.pattern import IMAGENET, VGG
from pipeline.monitor.metrics import MetricsFile, read_rows
from pipeline.train import Job, checkpoint, fit, loop, resume, run
from pipeline.train.engine import Engine
from pipeline.train.plan import Plan
from pipeline.train.ranks import Ranks, join
from pipeline.train.start import build_model, refuse_random_pool


def write_config(path, tree) -> str:
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def weights(run) -> dict:
    return checkpoint.read(run)["model"]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- the loop ---------------------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_its_folder(small_index, tmp_path):
    changes = {"train__epochs": 6.0, "data__val": "val", "data__test": "test", "monitor__samples": 9}
    config = quick_config(small_index, tmp_path, **changes)
    assert door("launch.train", write_config(tmp_path / "c.yaml", config.model_dump())).returncode == 0
    run = tmp_path / "quick"
    rows = read_rows(run / "metrics.jsonl")
    trained = [row for row in rows if row["split"] == "train"]
    steps = math.ceil(6 * 250 / 24)
    assert [row["step"] for row in trained] == list(range(1, steps + 1))
    assert trained[-1].keys() >= {"time", "epoch", "loss", "top1", "lr", "images_per_s", "samples"}
    assert trained[-1]["samples"] == steps * 24
    assert [row["epoch"] for row in rows if row["split"] == "val"] == pytest.approx(
        [1, 2, 3, 4, 5, 6], abs=0.1
    )
    (test,) = [row for row in rows if row["split"] == "test"]
    assert test["top1"] > 0.6, "chance is 0.2"
    names = [path.name for path in checkpoint.numbered(run / "checkpoints")]
    assert names[-1] == f"step_{steps:08d}.pt"
    assert (run / "checkpoints" / "latest").read_text().strip() == names[-1]
    watched = [(row["top1"], -row["step"]) for row in rows if row["split"] == "val"]
    best = f"step_{-max(watched)[1]:08d}.pt"
    assert (run / "checkpoints" / "best").read_text().strip() == best
    assert len({best, *names}) == len(names) <= 3, "the last two, and the best"
    assert load(TrainConfig, run / "config.yaml") == config
    with np.load(run / "samples.npz", allow_pickle=False) as samples:
        assert samples["pictures"].shape == (9, 32, 32, 3)
        split = open_index(small_index).split("test")
        kept = np.linspace(0, 69, 9).astype(int)
        assert np.array_equal(samples["pictures"], split.pixels[kept])
        assert np.array_equal(samples["labels"], split.labels[kept])

    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.*") if path.is_file()}
    again = door("launch.train", str(run / "config.yaml"))
    assert again.returncode == 0, again.stderr
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*.pt")}
    assert all(before[path] == stamp for path, stamp in after.items()), "a finished run is left alone"
    assert read_rows(run / "metrics.jsonl") == rows


LOSSES = """
import json, sys, torch
from pipeline.config import TrainConfig, load
from pipeline.models import build
from pipeline.data.index import open_index
from pipeline.data.batches import training_rows
from pipeline.data.order import Order
from pipeline.train.engine import build_engine
from pipeline.train import Job
from pipeline.train.ranks import join

config = load(TrainConfig, sys.argv[1], sys.argv[2:])
with join("cpu") as ranks:
    split = open_index(config.data.index).split("train")
    job = Job(config, ranks, split)
    torch.manual_seed(0)
    model = build(config.model.name, 5, norm=False).to(memory_format=torch.channels_last)
    engine = build_engine(model, config, ranks)
    accumulate, batch = config.train.accumulate, config.train.batch
    rows = training_rows(Order(len(split), batch, 1), ranks.rank, ranks.world, accumulate, 0, 3)
    batches = job.loader(split).training(rows, batch // ranks.world // accumulate, 1)
    before = [p.detach().clone() for p in model.parameters()]
    losses, gradients = [], None
    for step in range(3):
        stepped = engine.step([next(batches) for _ in range(accumulate)], lr=0.01)
        losses.append(float(ranks.sum(stepped.loss.clone())) / ranks.world)
        if step == 0:  # plain SGD: the first update is the gradient times the learning rate
            gradients = [((b - p.detach()) / 0.01) for b, p in zip(before, model.parameters())]
    if ranks.first:
        torch.save({"losses": losses, "gradients": gradients}, config.runs + ".pt")
"""


def test_ranks_and_accumulation_only_split_a_step(small_index, tmp_path, monkeypatch):
    """Without batch norm: 1 rank, with 2 micro-batches, 3 ranks x 2 have one loss and one gradient."""
    (tmp_path / "losses.py").write_text(LOSSES)
    tree = config_tree(small_index, tmp_path, optim={"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0})
    path = write_config(tmp_path / "c.yaml", tree)
    found = {}
    for name, world, accumulate in (("one", 1, 1), ("two", 1, 2), ("six", 3, 2)):
        script = str(tmp_path / "losses.py")
        words = [script, path, f"runs={tmp_path / name}", f"train.accumulate={accumulate}"]
        if world == 1:
            monkeypatch.setattr(sys, "argv", words)
            runpy.run_path(script, run_name="__main__")
        else:
            process = torchrun(world, *words)
            _, errors = process.communicate(timeout=900)
            assert process.returncode == 0, errors
        found[name] = torch.load(tmp_path / f"{name}.pt", weights_only=True)
    for name in ("two", "six"):
        assert found[name]["losses"] == pytest.approx(found["one"]["losses"], rel=1e-5)
        for ours, theirs in zip(found[name]["gradients"], found["one"]["gradients"], strict=True):
            assert torch.linalg.norm(ours - theirs) <= 1e-4 * torch.linalg.norm(theirs)


@pytest.mark.parametrize("world", [1, 3])
def test_evaluation_counts_every_picture_once(world, small_index, tmp_path):
    """70 pictures, batches of 16: divisible by neither. The reference is one plain pass in torch."""
    script = tmp_path / "evaluate.py"
    script.write_text(
        "import sys, torch\n"
        "from pipeline.config import Pictures, Loading\n"
        "from pipeline.data.index import open_index\n"
        "from pipeline.data.loader import Loader\n"
        "from pipeline.models import build\n"
        "from pipeline.train.evaluate import evaluate\n"
        "from pipeline.train.ranks import join\n"
        "with join('cpu') as ranks:\n"
        "    split = open_index(sys.argv[1]).split('test')\n"
        "    pictures = Pictures(size=32, crop='pad', eval_resize=None)\n"
        "    torch.manual_seed(3)\n"
        "    model = build('resnet8', 5).eval()\n"
        "    loader = Loader(split, pictures, Loading(threads=1), ranks.device, True)\n"
        "    seen = evaluate(model, loader, 16, ranks, torch.float32)\n"
        "    if ranks.first:\n"
        "        print(repr((seen.loss, seen.top1, seen.predictions.tolist())))\n"
    )
    process = torchrun(world, str(script), str(small_index))
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    loss, top1, predictions = json.loads(out.strip().splitlines()[-1].replace("(", "[").replace(")", "]"))
    split = open_index(small_index).split("test")
    torch.manual_seed(3)
    model = build("resnet8", 5).eval()
    mean, std = (torch.tensor(v) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    images = ((torch.from_numpy(np.array(split.pixels[:])) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = model(images)
    labels = torch.from_numpy(split.labels.astype(np.int64))
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert top1 == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert predictions == logits.argmax(1).tolist()


def test_a_run_started_again_from_nothing_is_evaluated_again(small_index, tmp_path):
    """All checkpoints are gone, but the folder's samples and metrics are not: they are of the run before."""
    config = quick_config(small_index, tmp_path, train__epochs=0.3, data__test="test", monitor__samples=4)
    with join("cpu") as ranks:
        run(config, ranks)
        for file in (tmp_path / "quick" / "checkpoints").iterdir():
            file.unlink()
        (tmp_path / "quick" / "samples.npz").write_bytes(b"of the run before")
        run(config, ranks)
    rows = read_rows(tmp_path / "quick" / "metrics.jsonl")
    assert [row["split"] for row in rows] == ["train"] * 4 + ["test"]
    with np.load(tmp_path / "quick" / "samples.npz", allow_pickle=False) as samples:
        assert len(samples["pictures"]) == 4


def test_samples_of_other_pictures_do_not_outlive_a_run_that_dies_before_it_has_new_ones(
    small_index, tmp_path, monkeypatch
):
    """Without a test split they are of the last validation, whose row is written before the last save."""
    how = {"train__epochs": 0.3, "monitor__samples": 4}
    with join("cpu") as ranks:
        run(quick_config(small_index, tmp_path, data__val="val", **how), ranks)
        folder = tmp_path / "quick"
        assert json.loads((folder / "confusion.json").read_text())["pictures"] == 50
        other = quick_config(small_index, tmp_path, data__val="train", **how)
        with monkeypatch.context() as patch:
            patch.setattr(loop._Course, "finish", lambda _: sys.exit("dies"))
            with pytest.raises(SystemExit, match="dies"):
                run(other, ranks)
        assert [row["split"] for row in read_rows(folder / "metrics.jsonl")][-1] == "val"
        run(other, ranks)
    assert json.loads((folder / "confusion.json").read_text())["pictures"] == 250


def test_a_finished_run_is_tested_again_on_other_pictures(small_index, tmp_path):
    with join("cpu") as ranks:
        for test, val in (("test", "val"), ("train", None), ("train", None)):
            how = {"data__test": test, "data__val": val, "train__epochs": 0.3}
            run(quick_config(small_index, tmp_path, **how), ranks)
    folder, splits = tmp_path / "quick", open_index(small_index)
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row["split"] != "train"]
    pictures = {row["split"]: row["pictures"] for row in rows}
    assert pictures == {
        "val": splits.split("val").fingerprint[:12],
        "test": splits.split("train").fingerprint[:12],
    }
    assert len(rows) == 2
    assert json.loads((folder / "confusion.json").read_text())["pictures"] == 250
    (code,) = yaml.safe_load((folder / "code.yaml").read_text())
    assert code["hardware"] == hardware("cpu")


@pytest.mark.parametrize("noted", [True, False])
def test_validated_on_other_pictures_another_best_is_found(small_index, tmp_path, noted):
    """The best of before cannot be beaten. Of which pictures it was is not ``noted`` in older checkpoints."""
    how = {"train__epochs": 0.5, "checkpoint": {"every": 0.2, "keep": 9}, "monitor__eval_every": 0.2}
    folder = tmp_path / "quick" / "checkpoints"
    with join("cpu") as ranks:
        run(quick_config(small_index, tmp_path, data__val="val", **how), ranks)
        state = checkpoint.read(folder / "step_00000003.pt") | {"best": 2.0}
        rows = read_rows(folder.parent / "metrics.jsonl")
        if not noted:
            del state["best_of"]
            rows = [{key: value for key, value in row.items() if key != "pictures"} for row in rows]
        (folder.parent / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for file in folder.iterdir():
            file.unlink()
        torch.save(state, folder / "step_00000003.pt")
        run(quick_config(small_index, tmp_path, data__val="test", **how), ranks)
    new = open_index(small_index).split("test").fingerprint[:12]
    rows = read_rows(folder.parent / "metrics.jsonl")
    watched = [(row["step"], row.get("pictures")) for row in rows if row["split"] == "val"]
    assert watched == [(3, new if noted else None), (5, new), (6, new)]
    assert (folder / "best").exists() == noted
    last = checkpoint.read(folder.parent)
    assert last["best_of"] == new
    assert (last["best"] == 2.0) != noted


# --- arithmetic -------------------------------------------------------------------------------------------


@given(n=st.integers(1, 3000), batch=st.integers(1, 200), every=st.floats(0.05, 4), epochs=st.floats(0.1, 9))
def test_saves_come_once_per_period_and_at_the_end(small_index, n, batch, every, epochs):
    tree = config_tree(small_index, "runs", train={"batch": batch, "epochs": epochs})
    config = TrainConfig.model_validate(tree | {"checkpoint": {"every": every}})
    plan = Plan.of(config, n, 1)
    saves = [done for done in range(1, plan.steps + 1) if plan.saves(done)]
    assert saves[-1] == plan.steps
    periods = math.floor(plan.epoch(plan.steps) / every + 1e-6)
    # A step longer than the period reaches several of its ends at once.
    assert len(saves) <= periods + 1
    if n / batch * every >= 1:
        assert len(saves) >= periods


# --- metrics, start and continue -------------------------------------------------------------------------


def test_metrics_forget_what_will_be_done_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, 0)
    for step in range(1, 8):
        file.write({"step": step, "split": "train"})
    file.close()
    path.write_text(path.read_text() + '{"step": 8, "spl')  # cut off by a kill
    file = MetricsFile(path, 5)
    file.write({"step": 6, "split": "train"})
    file.close()
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4, 5, 6]


def test_start_weights_need_the_same_network(small_index, tmp_path):
    with join("cpu") as ranks:
        split = open_index(small_index).split("train")
        first = quick_config(small_index, tmp_path, name="first", train__epochs=0.2)
        fit(Job(first, ranks, split))
        other = quick_config(
            small_index,
            tmp_path,
            name="other",
            model={"name": "resnet14", "checkpoint": str(tmp_path / "first")},
        )
        with pytest.raises(UserError, match=r"model\.checkpoint: .*first does not hold a resnet14: layer"):
            fit(Job(other, ranks, split))


@pytest.mark.parametrize(
    ("size", "changes", "wrong"),
    [
        (224, {}, None),
        (448, {"progressive": {"start": 224, "epochs": [0, 1], "multiple": 224}}, None),
        (448, {"progressive": {"start": 224, "epochs": [5, 5]}}, None),
        (224, {"progressive": {"start": 160, "epochs": [0, 0]}}, None),
        (200, {}, "size: vgg11 on pictures of 200 pixels"),
        (448, {"progressive": {"start": 160, "epochs": [0, 1]}}, "progressive.start: .* of 160 pixels"),
        (448, {"progressive": {"start": 224, "epochs": [0, 1]}}, "progressive.multiple: .* of 256 pixels"),
    ],
)
def test_a_vgg_is_deterministic_on_a_gpu_where_its_grid_divides(size, changes, wrong, small_index):
    """Refused before anything is on the device."""
    pictures = {"size": size, "crop": "random_resized", "eval_resize": None} | changes
    how = {"train__deterministic": True, "data__pictures": pictures}
    config = quick_config(small_index, "runs", model={"name": "vgg11", "width": 0.02}, **how)
    if wrong is None:
        refuse_random_pool(config, VGG)
    else:
        message = (
            rf"data\.pictures\.{wrong} cannot .*; give a multiple of 224, or train\.deterministic: false"
        )
        with pytest.raises(UserError, match=message):
            build_model(config, ["a"], Ranks(0, 1, 0, torch.device("cuda", 0)))
        build_model(config, ["a"], Ranks(0, 1, 0, torch.device("cpu")))
    refuse_random_pool(config, IMAGENET)


def test_a_run_goes_on_though_what_it_started_from_is_gone(small_index, tmp_path):
    with join("cpu") as ranks:
        split = open_index(small_index).split("train")
        fit(Job(quick_config(small_index, tmp_path, name="first", train__epochs=0.2), ranks, split))
        source = checkpoint.latest(tmp_path / "first")
        model = {"name": "resnet8", "checkpoint": str(source)}
        job = Job(quick_config(small_index, tmp_path, model=model, checkpoint__keep=9), ranks, split)
        fit(job)
        expected = weights(tmp_path / "quick")
        back_to_the_first(tmp_path / "quick")
        source.unlink()
        fit(job)
        assert equal(weights(tmp_path / "quick"), expected)
        with pytest.raises(UserError, match=r"model\.checkpoint: .*: no such checkpoint"):
            fit(Job(job.config.model_copy(update={"name": "anew"}), ranks, split))


def test_a_run_that_goes_on_keeps_no_second_copy_of_its_state(small_index, tmp_path, monkeypatch):
    """What was read is gone before the first pass, the largest moment of all."""
    read, found = [], []
    prime, find = Engine.prime, resume.find

    def noted(*words, **how) -> dict | None:
        state = find(*words, **how)
        if state:
            momenta = [kept["momentum_buffer"] for kept in state["optimizer"]["named"].values()]
            tensors = [*state["model"].values(), *state["ema"].values(), *momenta]
            read.extend(map(weakref.ref, tensors))
        return state

    def primed(*words) -> None:
        gc.collect()
        found.append(sum(ref() is not None for ref in read))
        prime(*words)

    monkeypatch.setattr(resume, "find", noted)
    monkeypatch.setattr(Engine, "prime", primed)
    config = quick_config(small_index, tmp_path, train__ema=0.9, checkpoint__keep=9)
    with join("cpu") as ranks:
        job = Job(config, ranks, open_index(small_index).split("train"))
        fit(job)
        back_to_the_first(config.folder)
        fit(job)
    assert len(read) > 100
    assert found == [0, 0]


def test_a_run_goes_on_under_newer_code(small_index, tmp_path):
    """Its checkpoint knows nothing of keys that came later; another value than their defaults is refused."""
    path = write_config(tmp_path / "c.yaml", quick_config(small_index, tmp_path).model_dump())
    assert door("launch.train", path, "train.epochs=0.2").returncode == 0
    newest = checkpoint.latest(tmp_path / "quick")
    state = checkpoint.read(newest)
    del state["config"]["data"]["pictures"]["pad_colour"]
    state["config"]["train"]["epochs"] = 1.0
    torch.save({"format": checkpoint.FORMAT} | state, newest)
    got = door("launch.train", path, "data.pictures.pad_colour=mean")
    assert got.returncode == 2
    assert "error: data.pictures.pad_colour: 'mean', but " in got.stderr
    assert "was started with 'black'" in got.stderr
    got = door("launch.train", path)
    assert got.returncode == 0, got.stderr
    steps = [row["step"] for row in read_rows(tmp_path / "quick" / "metrics.jsonl")]
    assert steps == list(range(1, 12))


def test_another_run_in_the_same_folder_is_refused(small_index, tmp_path):
    config = quick_config(small_index, tmp_path, train__epochs=0.2)
    path = write_config(tmp_path / "c.yaml", config.model_dump())
    assert door("launch.train", path).returncode == 0
    for word, message in {
        "optim.lr=0.2": r"error: optim.lr: 0.2, but .*quick was started with 0.1",
        "train.batch=25": r"error: train.batch: 25, but",
        "data.pictures.pad=2": r"error: data.pictures.pad: 2, but",
        "seed=4": r"error: seed: 4, but",
    }.items():
        got = door("launch.train", path, word)
        assert got.returncode == 2
        assert got.stderr.strip().count("\n") == 0, got.stderr
        assert re.match(message, got.stderr), got.stderr
    assert door("launch.train", path, "monitor.log_every=2", "data.loading.threads=2").returncode == 0
    assert dump(config).splitlines()[0] == "name: quick"
