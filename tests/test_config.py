"""Configs: what a file and overrides become, and what mistakes are told."""

from typing import get_args

import pytest
import yaml
from conftest import ROOT, config_tree, door, torchrun
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import TrainConfig, TransferConfig, UserError, dump, keys, load, parse
from pipeline.config.load import read_yaml
from pipeline.config.protocol import find
from pipeline.train.plan import steps_of


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config_tree("data/x", "runs")))
    return path


def test_overrides_win_over_the_file_and_the_file_over_defaults(file):
    config = load(
        TrainConfig, file, ["optim.lr=3e-2", "data.pictures.flip=0", "train.compile=true", "seed=7"]
    )
    assert (config.optim.lr, config.data.pictures.flip, config.train.compile, config.seed) == (
        0.03,
        0,
        True,
        7,
    )
    assert config.train.batch == 24
    assert config.optim.momentum == 0.9


def test_the_resolved_config_repeats_itself(file, tmp_path):
    config = load(TrainConfig, file, ["optim.lr=1e-7", "data.val=null", "train.epochs=0.333333333333333314"])
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load(TrainConfig, tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.bach=3", r"train\.bach: no such key; did you mean train\.batch\?"),
        ("lr=0.1", r"lr: no such key; did you mean optim\.lr\?"),
        ("data.size=32", r"data\.size: no such key; did you mean data\.pictures\.size\?"),
        ("zzz=1", r"zzz: no such key; the top level has name, runs, seed"),
        ("train.batch=ten", r"train\.batch: input should be a valid integer, not 'ten'"),
        ("train.batch=2.5", r"train\.batch: .* integer.* not 2\.5"),
        ("train.batch=true", r"train\.batch: .* integer.* not True"),
        ("train.compile=1", r"train\.compile: .* boolean.* not 1"),
        ("optim.lr=-1", r"optim\.lr: input should be greater than 0, not -1"),
        ("train.precision=fp8", r"train\.precision: .*'fp32', 'bf16' or 'fp16', not 'fp8'"),
        ("train=3", r"train: .* not 3"),
        ("model.name.x=1", r"'model\.name\.x=1': 'model\.name' holds a value, not a section"),
        ("batch", r"'batch': an override is written section\.key=value"),
        ("monitor.profile=[9, 3]", r"monitor\.profile: .* runs backwards; write \[3, 9\]"),
        ("data.pictures.scale=[1.0, 0.1]", r"data\.pictures\.scale: .* runs backwards; write \[0\.1, 1\.0\]"),
        ("data.pictures.eval_resize=16", r"data\.pictures\.eval_resize: 16 is smaller than .* 32"),
        ("name='../up and away'", r"name: .* not '\.\./up and away'"),
    ],
)
def test_a_mistake_names_the_key_and_what_would_be_right(file, override, message):
    with pytest.raises(UserError, match=message) as told:
        load(TrainConfig, file, [override])
    assert "\n" not in str(told.value)


def test_training_ends_by_epochs_or_steps_whichever_comes_first(file):
    both, alone = (
        load(TrainConfig, file, ["train.steps=7", *more]).train for more in ([], ["train.epochs=null"])
    )
    assert (both.epochs, alone.epochs) == (1.0, None)
    assert [steps_of(both, n) for n in (1, 24, 120, 121, 9999)] == [1, 1, 5, 6, 7]
    assert [steps_of(alone, n) for n in (1, 9999)] == [7, 7]
    rounded = both.model_copy(update={"epochs": 1.1, "batch": 100, "steps": None})
    assert steps_of(rounded, 50_000) == 550, "not 551 for 550.0000000000001"
    with pytest.raises(
        UserError, match=r"train\.epochs: missing; say when training ends: epochs: 90, or steps"
    ):
        load(TrainConfig, file, ["train.epochs=null"])


def test_files_that_are_no_configs(tmp_path):
    for content, message in {
        "a: [1": "not YAML",
        "- 1\n- 2": "a mapping of sections, not list",
        "": "a mapping of sections, not NoneType",
        "name: x": "data: missing",
    }.items():
        (tmp_path / "c.yaml").write_text(content)
        with pytest.raises(UserError, match=message):
            load(TrainConfig, tmp_path / "c.yaml")
    with pytest.raises(UserError, match=r"no such config; did you mean .*c\.yaml\?"):
        load(TrainConfig, tmp_path / "d.yaml")


def test_yaml_cannot_make_objects(tmp_path):
    (tmp_path / "c.yaml").write_text(f"name: !!python/object/apply:os.system ['touch {tmp_path}/owned']")
    with pytest.raises(UserError, match="not YAML"):
        load(TrainConfig, tmp_path / "c.yaml")
    with pytest.raises(UserError, match="not YAML"):
        load(TrainConfig, ROOT / "configs" / "demo" / "train.yaml", ["name=!!python/name:os.system"])
    assert not (tmp_path / "owned").exists()


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_override_is_a_config_or_a_line(key, value):
    told = "nothing wrong"
    try:
        load(TrainConfig, ROOT / "configs" / "demo" / "train.yaml", [f"{key}={value}"])
    except UserError as error:
        told = str(error)
    assert told
    assert "\n" not in told


def test_every_shipped_config_is_right():
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert files
    for file in files:
        if "follows" in read_yaml(file):  # a protocol
            assert find(file.stem, None, "protocol")["follows"]
            continue
        if file.parent.name == "study":  # tests/test_study.py
            continue
        schema = TransferConfig if "transfer" in str(file.relative_to(ROOT)) else TrainConfig
        load(schema, file)


def test_every_field_is_explained():
    """Fields without a docstring are those whose name and type say everything."""
    plain = {"name", "seed", "lr", "momentum", "nesterov", "engine", "channels_last", "label_smoothing"}
    sections = {"data", "model", "optim", "train", "checkpoint", "monitor", "pictures", "loading", "runs"}
    for key in keys(TrainConfig):
        schema, *path = TrainConfig, *key.split(".")
        for part in path[:-1]:
            kind = schema.model_fields[part].annotation  # a section, or a section or none
            schema = next(each for each in (kind, *get_args(kind)) if hasattr(each, "model_fields"))
        assert schema.model_fields[path[-1]].description or path[-1] in plain | sections, key


def test_doors_end_with_code_2_and_one_line(tmp_path, file):
    for words, message in {
        ("launch.train", str(tmp_path / "none.yaml")): "no such config",
        ("launch.train", str(file), "train.bach=3"): "did you mean train.batch?",
        ("launch.train", str(file)): "data.index: no index in data/x; make one: python -m launch.prepare",
        ("launch.transfer", str(file)): "no such key",
        ("launch.prepare", "cifar11", "--out", str(tmp_path / "o")): "'cifar11': no such source",
        ("launch.prepare", "imagefolder", "--root", str(tmp_path / "n"), "--out", str(tmp_path / "o")): "n",
    }.items():
        got = door(*words)
        assert got.returncode == 2, got.stderr
        assert got.stderr.count("\n") == 1, got.stderr
        assert got.stderr.startswith("error: ")
        assert message in got.stderr
    assert not (tmp_path / "o").exists()


def test_a_runs_folder_that_cannot_be_made_costs_a_line(file, small_index, tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years of work")
    got = door("launch.train", str(file), f"data.index={small_index}", f"runs={tmp_path}/thesis.txt")
    assert got.returncode == 2
    assert got.stderr.count("\n") == 1, got.stderr
    assert "thesis.txt/quick: Not a directory" in got.stderr


def test_under_torchrun_a_mistake_is_told_once(file):
    process = torchrun(2, "-m", "launch.train", str(file))
    _, errors = process.communicate(timeout=900)
    assert process.returncode != 0
    assert errors.count("no index in data/x") == 1
    assert "Traceback" not in errors.partition("error: ")[2].partition("\n")[0]


def test_unknown_names_of_networks_are_told_with_the_nearest(file, small_index):
    got = door("launch.train", str(file), f"data.index={small_index}", "model.name=resnet2O", "--dry-run")
    assert got.returncode == 2
    assert got.stderr.count("\n") == 1, got.stderr
    assert "resnet20" in got.stderr


def test_a_dry_run_checks_everything_and_prints_the_config(file, small_index, tmp_path):
    words = [str(file), f"data.index={small_index}", "--dry-run", f"runs={tmp_path}/dry"]
    got = door("launch.train", *words)
    assert got.returncode == 0, got.stderr
    assert parse(TrainConfig, yaml.safe_load(got.stdout), "printed").data.index == str(small_index)
    assert not (tmp_path / "dry").exists()
