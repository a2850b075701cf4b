"""The transfer stage: frozen is frozen, three modes from one checkpoint."""

import hashlib
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from conftest import door, quick_config
from torch import nn

from pipeline.config import Pictures, Train, TransferConfig, UserError, dump, parse
from pipeline.data.index import open_index
from pipeline.train import Job, checkpoint, fit
from pipeline.train.ranks import join
from pipeline.train.resume import FREE_IN_TRAIN
from pipeline.train.start import build_model
from pipeline.transfer.answers import Answers
from pipeline.transfer.backbone import Backbone
from pipeline.transfer.run import run

SMALL = Pictures(size=32, crop="pad", eval_resize=None)


@pytest.fixture(scope="module")
def pretrained(small_index, tmp_path_factory):
    """A run's folder with a checkpoint of a ResNet-8 that learned five classes of stripes."""
    runs = tmp_path_factory.mktemp("pretrained")
    with join("cpu") as ranks:
        config = quick_config(small_index, runs, train__epochs=3.0)
        fit(Job(config, ranks, open_index(small_index).split("train")))
    return runs / "quick"


def transfer_tree(checkpoint, index, runs) -> dict:
    recipe = {"optim": {"lr": 0.05}, "train": {"batch": 6, "epochs": 2, "device": "cpu"}}
    return {
        "name": "moved",
        "runs": str(runs),
        "checkpoint": str(checkpoint),
        "datasets": [{"name": "other", "index": str(index), "per_class": 8, "validation": 0.25, "seeds": 2}],
        "pictures": SMALL.model_dump(),
        "loading": {"threads": 1},
        "batch": 20,
        "finetuned": recipe,
        "scratch": recipe,
        "monitor": {"samples": 5},
    }


def buffers_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def test_frozen_means_that_nothing_moves(pretrained):
    """Not under a parent's train(), not over many batches, not by an optimizer step on what is behind it."""
    frozen = Backbone.read(str(pretrained)).frozen(torch.device("cpu"))
    whole = nn.Sequential(frozen, nn.Linear(64, 3))
    before = buffers_hash(frozen)
    whole.train()
    assert all(not module.training for module in frozen.model.modules())
    optimizer = torch.optim.SGD(whole.parameters(), lr=1.0)
    for seed in range(3):
        torch.manual_seed(seed)
        whole(torch.randn(8, 3, 32, 32) * 5 + 2).square().sum().backward()
        optimizer.step()
    assert buffers_hash(frozen) == before
    # What the trap looks like: weights frozen, statistics moving.
    trapped = frozen.model.requires_grad_(False).train()
    trapped(torch.randn(8, 3, 32, 32))
    assert buffers_hash(frozen) != before


def test_the_whole_stage_and_that_it_goes_on(pretrained, other_index, tmp_path):
    config = parse(TransferConfig, transfer_tree(pretrained, other_index, tmp_path), "test")
    with join("cpu") as ranks:
        (result,) = run(config, ranks)
    folder = tmp_path / "moved" / "transfer"
    assert json.loads((folder / "other.json").read_text()) == result
    rows = {(row["mode"], row["seed"]): row for row in result["results"]}
    assert set(rows) == {(mode, seed) for mode in ("frozen", "finetuned", "scratch") for seed in (0, 1)}
    for row in rows.values():
        assert (row["n_train"], row["n_test"]) == (24, 45)
        assert row["low"] <= row["value"] <= row["high"]
        assert np.trace(row["confusion"]) / 45 == pytest.approx(row["value"])
    assert rows["frozen", 0]["value"] > 0.5, "chance is 0.33"
    for mode in ("frozen", "finetuned", "scratch"):
        values = [rows[mode, seed]["value"] for seed in (0, 1)]
        assert result["summary"][mode]["value"] == pytest.approx(np.mean(values))
    gain = result["improvement"]["frozen"]["value"]
    assert gain == pytest.approx(result["summary"]["frozen"]["value"] - result["summary"]["scratch"]["value"])
    with np.load(folder / "other.samples.npz", allow_pickle=False) as samples:
        assert samples["pictures"].shape == (5, 32, 32, 3)
        assert samples["predictions_scratch"].shape == (5,)
    kept = [Answers.read(folder / "other" / f"{mode}-0.npz") for mode in ("frozen", "finetuned", "scratch")]
    for each in kept:
        assert ((each.confidence > 1 / 3) & (each.confidence <= 1)).all()
    mistaken = any((each.answers != each.labels).any() for each in kept)
    assert (folder / "other.mistakes.npz").exists() == mistaken

    # Again, with one answer lost: only that one is computed again, and comes out the same.
    lost, kept = folder / "other" / "finetuned-1.npz", folder / "other" / "scratch-0.npz"
    lost.unlink()
    stamp = kept.stat().st_mtime_ns
    time.sleep(0.01)
    with join("cpu") as ranks:
        (again,) = run(config, ranks)
    assert again == result
    assert kept.stat().st_mtime_ns == stamp

    # Answers to another question are never taken for these: other pictures, recipe or checkpoint. What was
    # refused leaves no trace.
    record = (folder / "config.yaml").read_text()
    changed = tmp_path / "changed.pt"
    state = checkpoint.read(pretrained)
    state["model"]["conv1.weight"] += 0.01
    torch.save(state, changed)
    for change, message in {
        "checkpoint": r"checkpoint_sha256: .*frozen-0\.npz was made with other weights; give those",
        "per_class": r"train: .*frozen-0\.npz was made with other training pictures; give those",
        "finetuned": r"finetuned\.optim\.lr: 0\.2, but .*finetuned-0\.npz was made with 0\.05; give 0\.05, "
        r"another name, or remove .*finetuned-0\.npz and .*finetuned-0-[0-9a-f]{8}$",
        "scratch": r"scratch\.optim\.lr: 0\.2, but .*, or remove .*scratch-0\.npz and .*scratch-0$",
    }.items():
        wrong = transfer_tree(pretrained, other_index, tmp_path)
        if change == "checkpoint":
            wrong["checkpoint"] = str(changed)
        elif change == "per_class":
            wrong["datasets"][0]["per_class"] = 9
        else:
            wrong[change] = wrong[change] | {"optim": {"lr": 0.2}}
        with join("cpu") as ranks, pytest.raises(UserError, match=message):
            run(parse(TransferConfig, wrong, "test"), ranks)
    assert (folder / "config.yaml").read_text() == record


def test_a_training_that_diverges_in_its_last_steps_is_no_result(pretrained, other_index, tmp_path):
    tree = transfer_tree(pretrained, other_index, tmp_path)
    tree["finetuned"] = {"optim": {"lr": 1e30}, "train": {"batch": 6, "steps": 3, "device": "cpu"}}
    message = r"finetuned\.optim\.lr: training on other diverged; give a lower one"
    with join("cpu") as ranks, pytest.raises(UserError, match=message):
        run(parse(TransferConfig, tree | {"modes": ["finetuned"]}, "test"), ranks)
    assert not list((tmp_path / "moved").rglob("*.npz"))


def test_a_config_that_is_written_down_says_no_more_than_was_given(pretrained, other_index, tmp_path):
    """What launch.submit writes is read by the job: mean and std must still be the checkpoint's."""
    backbone = Backbone.read(str(pretrained))
    own = backbone.pictures.model_copy(update={"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]})
    backbone = replace(backbone, pictures=own)
    tree = transfer_tree(pretrained, other_index, tmp_path)
    tree["pictures"] = {"size": 32, "crop": "pad", "eval_resize": None, "std": [1.0, 1.0, 1.0]}
    config = parse(TransferConfig, tree, "test")
    again = parse(TransferConfig, yaml.safe_load(dump(config)), "test")
    for each in (config, again):
        found = backbone.normalised(each.pictures)
        assert (found.mean, found.std) == (own.mean, [1.0, 1.0, 1.0])
    assert again == config
    done = config.model_copy(update={"pictures": backbone.normalised(config.pictures)})
    assert parse(TransferConfig, yaml.safe_load(dump(done)), "test").pictures.mean == own.mean


def test_finetuning_starts_from_the_checkpoint_with_a_new_head(
    pretrained, other_index, small_index, tmp_path
):
    weights = checkpoint.read(pretrained)["model"]
    with join("cpu") as ranks:
        model = {"name": "resnet8", "checkpoint": str(pretrained)}
        config = quick_config(other_index, tmp_path, model=model)
        moved = build_model(config, list("xyz"), ranks).state_dict()
        same = build_model(config, list("abcde"), ranks).state_dict()
        renamed = build_model(config, list("vwxyz"), ranks).state_dict()
    for key, value in weights.items():
        if not key.startswith("fc."):
            assert torch.equal(moved[key], value), key
    assert moved["fc.weight"].shape == (3, 64)
    assert torch.equal(same["fc.weight"], weights["fc.weight"])
    assert not torch.equal(renamed["fc.weight"], weights["fc.weight"]), "as many classes, but others"


def test_mistakes_cost_a_line_each(pretrained, other_index, tmp_path):
    tree = transfer_tree(pretrained, other_index, tmp_path)
    path = tmp_path / "transfer.yaml"
    path.write_text(yaml.safe_dump(tree))
    got = door("launch.transfer", str(path), "datasets.0.per_class=30")
    assert got.returncode == 2
    assert got.stderr.count("\n") == 1, got.stderr
    assert "30" in got.stderr
    with join("cpu") as ranks:
        for change, message in {
            ("checkpoint", str(tmp_path)): "checkpoint: no checkpoint in .*checkpoints; train first",
            ("checkpoint", str(tmp_path / "gone.pt")): r"checkpoint: .*gone\.pt: no such checkpoint",
            ("index", str(tmp_path)): r"datasets\.0\.index: no index in",
            ("test", "train"): r"datasets\.0\.test: 'train' is also the training split",
            ("per_class", 1): r"datasets\.0\.validation: .* leaves none for validation",
            ("test", "val"): r"datasets\.0\.test: .* no split 'val', only train, test",
        }.items():
            key, value = change
            wrong = transfer_tree(pretrained, other_index, tmp_path)
            (wrong if key == "checkpoint" else wrong["datasets"][0])[key] = value
            with pytest.raises(UserError, match=message):
                run(parse(TransferConfig, wrong, "test"), ranks)


def test_what_a_recipe_cannot_have_is_refused(pretrained, other_index, tmp_path):
    for key, value, message in [
        ("ema", 0.99, r"finetuned\.train\.ema: what is tested are the weights themselves; leave it out"),
        ("device", "cuda", r"scratch\.train\.device: cpu, but finetuned\.train\.device is cuda: one job"),
    ]:
        tree = transfer_tree(pretrained, other_index, tmp_path)
        recipe = tree["finetuned"]
        tree["finetuned"] = recipe | {"train": recipe["train"] | {key: value}}
        with pytest.raises(UserError, match=message):
            parse(TransferConfig, tree, "test")


def test_where_and_how_a_transfer_runs_may_change_when_it_goes_on(tmp_path):
    """Earlier versions kept such keys among what decides the answers."""
    file, numbers = tmp_path / "finetuned-0.npz", np.arange(3)
    kept = {"batch": 6, "epochs": 2, "accumulate": 2, "time_limit": 60.0}
    Answers(numbers, numbers, numbers, {}, {"seed": 0, "finetuned": {"train": kept}}).keep(file)
    asked = {"seed": 0, "finetuned": {"train": Train(batch=6, epochs=2).model_dump(exclude=FREE_IN_TRAIN)}}
    assert Answers.known(file, asked)
    asked["finetuned"]["train"]["batch"] = 12
    with pytest.raises(UserError, match=r"finetuned\.train\.batch: 12, but .* was made with 6"):
        Answers.known(file, asked)


def test_a_transfer_goes_on_under_newer_code(tmp_path):
    """Kept answers know nothing of keys that came later; another value than their defaults is refused."""
    file, numbers, pictures = tmp_path / "frozen-0.npz", np.arange(3), Pictures(size=32, eval_resize=None)
    kept = {"seed": 0, "pictures": pictures.model_dump(exclude={"pad_colour"})}
    Answers(numbers, numbers, numbers, {}, kept).keep(file)
    assert Answers.known(file, {"seed": 0, "pictures": pictures.model_dump()})
    other = pictures.model_copy(update={"pad_colour": "mean"}).model_dump()
    with pytest.raises(UserError, match=r"pictures\.pad_colour: 'mean', but .* was made with 'black'"):
        Answers.known(file, {"seed": 0, "pictures": other})
