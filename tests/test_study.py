"""Studies: members as ordinary runs, shared and continued; what their pages say of claims."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml
from conftest import ROOT, config_tree, quick_config
from jobs import wait_until

from launch.study import main
from pipeline.claim import claim
from pipeline.config import StudyConfig, UserError, full_words, load
from pipeline.machine import hardware
from pipeline.monitor.metrics import read_rows
from pipeline.study.members import Members
from pipeline.study.page import Page, Verdict
from pipeline.study.run import dry_run, run
from pipeline.study.seeds import (
    AGREES,
    DIFFERS,
    OPEN,
    Interval,
    judge,
    judge_all,
    over_seeds,
    over_seeds_of_logs,
)
from pipeline.train import Job, fit
from pipeline.train.ranks import join
from pipeline.train.run import splits

STUDY_FILES = sorted((ROOT / "configs" / "study").glob("*.yaml"))
NETS = ("plain8", "plain14", "resnet8", "resnet14")


def study_tree(index, runs, **changes) -> dict:
    """Four tiny nets, two steps each."""
    shared = config_tree(index, runs, data__val="test", model__width=0.25, train__epochs=0.19, **changes)
    shared["optim"]["warmup"] = 0
    members = {name: {"model.name": name} for name in NETS}
    run = {key: value for key, value in shared.items() if key not in ("name", "runs")}
    return {"name": "small", "runs": str(runs), "seeds": [0, 1], "run": run, "members": members}


def written(folder, tree: dict) -> str:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(file)


# --- configs ----------------------------------------------------------------------------------------------


def test_members_are_runs_of_their_own_seed_by_seed(small_index, tmp_path):
    path = written(tmp_path, study_tree(small_index, tmp_path))
    study = load(StudyConfig, path, ["run.train.batch=10", "seeds=[3,1]"])
    configs = study.trainings(path)
    assert list(configs) == [(name, seed) for seed in (3, 1) for name in NETS]
    one = configs["plain14", 1]
    assert (one.name, one.model.name, one.seed, one.train.batch) == ("small/plain14-seed1", "plain14", 1, 10)
    assert one.folder == tmp_path / "small" / "plain14-seed1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": {"a": {"train.bach": 1}}}, r"study.yaml \(a\): train.bach: no such key; .*train.batch"),
        ({"members": {"a": {"seed.x": 1}}}, None),
        ({"members": {"a": {"model.name.x": 1}}}, r"study.yaml \(a\): model.name.x: is asked of a value"),
        ({"seeds": [1, 1]}, "seeds: .*each must be another"),
        ({"members": {}}, "members"),
    ],
)
def test_a_mistake_is_told_with_the_member(small_index, tmp_path, changes, message):
    path = written(tmp_path, study_tree(small_index, tmp_path) | changes)
    if message is None:  # seed and name are the study's
        assert load(StudyConfig, path).trainings(path)["a", 0].seed == 0
        return
    with pytest.raises(UserError, match=message):
        load(StudyConfig, path).trainings(path)


def test_the_full_size_goes_before_the_command_line(tmp_path, small_index):
    tree = study_tree(small_index, tmp_path) | {
        "full_size": {
            "name": "large",
            "run.train.epochs": 9,
            "run.optim.milestones": [1, 2],
            "members": {"a": {}},
        }
    }
    path = written(tmp_path, tree)
    assert full_words(path, ["seeds=[5]"]) == ["seeds=[5]"]
    with pytest.raises(UserError, match="'full=\\['"):  # no YAML, which is told as of any other key
        load(StudyConfig, path, full_words(path, ["full=["]))
    words = full_words(path, ["full=true", "run.train.epochs=8"])
    study = load(StudyConfig, path, words)
    assert (study.name, study.run["train"]["epochs"], list(study.members)) == ("large", 8, ["a"])
    assert study.run["optim"]["milestones"] == [1, 2]


@pytest.mark.parametrize("file", STUDY_FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("full", [False, True])
def test_shipped_studies_are_whole(file, full):
    from launch.study import STUDIES
    from pipeline.study.run import STUDIES as MODULES

    words = full_words(file, [f"full={str(full).lower()}"])
    study = load(STUDIES[file.stem], file, words)
    assert len(study.seeds) >= 3
    if file.stem != "precompute":
        configs = study.trainings(str(file))
        assert len(configs) == len(study.members) * len(study.seeds)
        MODULES[file.stem].check(study, configs)
    assert study.name == file.stem + "-full" * full
    text = file.read_text()
    assert f"python -m launch.study {file.stem}" in text


# --- figures ----------------------------------------------------------------------------------------------


def test_intervals_over_seeds_are_students():
    found = over_seeds([1.0, 2.0, 3.0])
    half = 4.30265 / np.sqrt(3)  # t of two degrees of freedom; the deviation is 1
    assert (found.value, found.seeds) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-4)
    logs = over_seeds_of_logs([1.0, 10.0, 100.0])
    assert logs.value == pytest.approx(10)
    assert logs.high / logs.value == pytest.approx(logs.value / logs.low)
    assert over_seeds([5.0]).told() == "5.0"
    assert over_seeds([60.0, 99.0], (0, 100)).high == 100, "an error is not more than all"


def test_a_claim_of_several_parts_agrees_with_all_or_not():
    up, unsure, down = Interval(1, 0.1, 2, 3), Interval(1, -0.1, 2, 3), Interval(-1, -2, -0.1, 3)
    assert judge_all(up, up) == AGREES
    assert judge_all(up, unsure) == OPEN
    assert judge_all(unsure, down) == judge_all(down, up) == DIFFERS


def test_a_claim_agrees_only_when_its_whole_interval_does():
    assert judge(Interval(1, 0.1, 2, 3)) == AGREES
    assert judge(Interval(1, -0.1, 2, 3)) == OPEN
    assert judge(Interval(-1, -2, -0.1, 3)) == DIFFERS
    assert judge(over_seeds([7.0])) == OPEN, "one seed tells nothing"


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ([AGREES, OPEN], "of 2 claims 1 agrees, 1 cannot be told here"),
        ([AGREES, AGREES, DIFFERS], "of 3 claims 2 agree, 1 does not"),
        ([DIFFERS, DIFFERS], "of 2 claims 0 agree, 2 do not"),
    ],
)
def test_the_headline_counts_the_verdicts(verdicts, told):
    page = Page("Depth", [Verdict("deeper", "me", "so", verdict) for verdict in verdicts], [], [], [])
    assert page.headline == f"Depth: {told}"


# --- runs and page ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(small_index, tmp_path_factory):
    """The study done, by its own door."""
    folder = tmp_path_factory.mktemp("study")
    path = written(folder, study_tree(small_index, folder))
    main(["depth", path])
    return folder, path


def test_the_page_says_what_was_claimed_run_and_found(done):
    folder, path = done
    text = (folder / "small" / "study.md").read_text()
    for part in ("Plain nets: 14 layers have a higher training error than 8", "He et al. 2015, figure 1"):
        assert part in text
    assert f"launch.study depth {path}" in text
    assert "95 %" in text
    verdicts = [line for line in text.splitlines() if "He et al. 2015" in line and line.startswith("|")]
    assert len(verdicts) == 5
    assert all(any(f"**{word}**" in line for word in (AGREES, DIFFERS, OPEN)) for line in verdicts)
    page = (folder / "small" / "study.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png") == 4, "light and dark, wide and narrow"
    assert (folder / "small" / "plots" / "depth.png").stat().st_size < 150_000


def test_the_table_has_the_runs_own_numbers(done):
    folder, _ = done
    rows = [read_rows(folder / "small" / f"plain8-seed{seed}" / "metrics.jsonl") for seed in (0, 1)]
    test = [100 * (1 - [row for row in part if row["split"] == "val"][-1]["top1"]) for part in rows]
    train = [100 * (1 - np.mean([row["top1"] for row in part if row["split"] == "train"])) for part in rows]
    (line,) = [
        line
        for line in (folder / "small" / "study.md").read_text().splitlines()
        if line.startswith("| plain-8 ")
    ]
    assert over_seeds(train, (0, 100)).told() in line
    assert over_seeds(test, (0, 100)).told() in line


def test_done_again_nothing_is_trained_and_the_page_is_the_same(done):
    folder, path = done
    metrics = {file: file.read_bytes() for file in folder.rglob("metrics.jsonl")}
    page = (folder / "small" / "study.md").read_bytes()
    main(["depth", path])
    assert {file: file.read_bytes() for file in folder.rglob("metrics.jsonl")} == metrics
    assert (folder / "small" / "study.md").read_bytes() == page


def test_a_run_that_another_command_holds_is_left_to_it(small_index, tmp_path):
    config = quick_config(small_index, tmp_path, model__width=0.25)
    free = config.model_copy(update={"name": "free"})
    held = claim(config.folder)
    with join("cpu") as ranks, held:
        members = Members({("a", 0): config, ("b", 0): free}, ranks)
        assert [key for key, _ in members] == [("b", 0)]
        assert members.elsewhere == [("a", 0)]


def test_a_run_that_another_command_has_let_go_of_is_taken_at_the_end(small_index, tmp_path):
    """Two commands that end together: each asks again for what the other held."""
    config = quick_config(small_index, tmp_path, model__width=0.25)
    held = claim(config.folder)
    with join("cpu") as ranks:
        members = Members({("a", 0): config, ("b", 0): config.model_copy(update={"name": "free"})}, ranks)
        seen = []
        for key, _ in members:
            seen.append(key)
            held.close()
    assert seen == [("b", 0), ("a", 0)]
    assert members.elsewhere == []


def test_what_depth_cannot_compare_is_told_before_anything_is_trained(small_index, tmp_path):
    tree = study_tree(small_index, tmp_path)
    twice = {"a": {"model.name": "plain8"}, "b": {"model.name": "plain8", "model.width": 0.5}}
    errorless = {name: {"model.name": name} for name in ("plain8", "plain14", "resnet8", "resnet14")}
    for members, message in (
        ({"a": {"model.name": "vgg11"}}, "members.a: model.name is vgg11"),
        (twice, "members.b: a is plain8 too; depth compares one of each"),
        (
            errorless | {"resnet8": {"model.name": "resnet8", "data.val": None}},
            "members.resnet8: data.val is null",
        ),
        ({"a": {"model.name": "plain8"}, "b": {"model.name": "resnet8"}}, "two or more plain nets"),
    ):
        path = written(tmp_path, tree | {"members": members})
        study = load(StudyConfig, path)
        for how in (run, dry_run):
            with pytest.raises(UserError, match=message):
                how("depth", study, study.trainings(path), *((None, "") if how is run else ()))
    assert not (tmp_path / "small").exists()


@pytest.mark.slow
def test_killed_the_same_command_goes_on(small_index, tmp_path, done):
    """SIGKILL in the middle of a run: the study ends in the numbers of one that was left in peace."""
    tree = study_tree(small_index, tmp_path, checkpoint__every=0.05)
    path = written(tmp_path, tree)
    words = [sys.executable, "-m", "launch.study", "depth", path]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    running = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    second = tmp_path / "small" / "plain14-seed0" / "metrics.jsonl"
    wait_until(running, second.exists)
    assert second.exists(), "it ended before its second run had begun"
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "it was still working"
    assert not (tmp_path / "small" / "study.md").exists()
    main(["depth", path])
    for file in sorted(tmp_path.rglob("metrics.jsonl")):
        peaceful = done[0] / file.relative_to(tmp_path)
        assert losses(file) == losses(peaceful), file


def losses(file) -> list[tuple]:
    return [(row["step"], row["split"], row["loss"], row["top1"]) for row in map(json.loads, file.open())]


# --- the other studies --------------------------------------------------------------------------------------


def test_shortcuts_cost_what_arithmetic_says(small_index, tmp_path):
    """ResNet-8 at a quarter: 4, 8, 16 channels; two projections of 4·8 and 8·16 weights, each with a norm."""
    from pipeline.study import shortcuts
    from pipeline.study.compared import costs
    from pipeline.study.trained import Trained

    tree = study_tree(small_index, tmp_path)
    tree["run"]["model"] = {"name": "resnet8", "width": 0.25}
    tree["members"] = {kind: {"model.shortcut": kind} for kind in shortcuts.KINDS}
    path = written(tmp_path, tree)
    study = load(StudyConfig, path)
    configs = study.trainings(path)
    shortcuts.check(study, configs)
    pad, projection = (costs(Trained(study, configs), kind) for kind in shortcuts.KINDS)
    assert projection["parameters"] - pad["parameters"] == 4 * 8 + 2 * 8 + 8 * 16 + 2 * 16
    assert projection["macs"] - pad["macs"] == 16 * 16 * 4 * 8 + 8 * 8 * 8 * 16
    sizes = [shortcuts.activations(pattern) for pattern in shortcuts.STEMS.values()]
    assert sizes == sorted(sizes), "the more is cut, the less is kept"


def test_features_once_and_for_each_give_the_same(small_index, tmp_path, capfd):
    folder, config = tmp_path, quick_config(small_index, tmp_path, model__width=0.25, train__epochs=0.1)
    with join("cpu") as ranks:
        fit(Job(config, ranks, **splits(config)))
    tree = {
        "name": "twice", "runs": str(folder), "seeds": [0], "tasks": 2, "train": 60, "test": 40,
        "checkpoint": str(config.folder),
        "data": {"index": str(small_index), "test": "test", "pictures": {"size": 32, "eval_resize": None}},
    }  # fmt: skip
    path = written(folder, tree)
    main(["precompute", path])
    text = (folder / "twice" / "study.md").read_text()
    assert "every task's accuracy is the same" in text
    found = json.loads((folder / "twice" / "seed0.json").read_text())
    assert found["hardware"] == hardware()
    assert f"Hardware: {hardware()}. Seconds are of the clock" in text
    assert [len(found["once"][0]["probe_s"]), len(found["each"])] == [2, 2]
    before = (folder / "twice" / "seed0.json").stat().st_mtime_ns
    main(["precompute", path])
    assert (folder / "twice" / "seed0.json").stat().st_mtime_ns == before
    assert (folder / "twice" / "study.md").read_text() == text
    assert not list((folder / "twice").glob("tmp*")), "nothing is left of the extractions"
    tree["name"] = "held"
    with claim(folder / "held"), pytest.raises(SystemExit) as left:
        main(["precompute", written(folder, tree)])
    assert left.value.code == 2
    assert "held: another job works in this folder" in capfd.readouterr().err
    assert not list((folder / "held").glob("*.json")), "two at once disturb each other's seconds"


def test_a_page_of_vgg(small_index, tmp_path):
    """From rows as training writes them: differences, and the words for them, are those of the rows."""
    from pipeline.study import vgg
    from pipeline.study.page import markdown
    from pipeline.study.trained import Trained

    tree = study_tree(small_index, tmp_path)
    tree["members"] = {f"vgg{d}{b}": {"model.name": f"vgg{d}{b}"} for b in vgg.NAMES for d in vgg.DEPTHS}
    path = written(tmp_path, tree)
    study = load(StudyConfig, path)
    configs = study.trainings(path)
    vgg.check(study, configs)
    make_runs(configs, {"vgg11": 0.5, "vgg16": 0.3, "vgg19": 0.4})
    page = vgg.page(Trained(study, configs))
    assert [each.agrees for each in page.verdicts][:2] == [AGREES, AGREES]
    assert "by 20.0 [20.0, 20.0] points" in markdown(page)
    assert "| vgg11 | 50.0" in markdown(page)
    assert "A: 29.6" in markdown(page)
    assert "Hardware: not kept; torch not kept." in markdown(page)
    for seed in study.seeds:
        entries = [{"after_step": 0, "torch": "2"}, {"after_step": 1, "torch": "2", "hardware": "1 × H100"}]
        (configs["vgg13", seed].folder / "code.yaml").write_text(yaml.safe_dump(entries))
    assert "Hardware: not kept, 1 × H100; torch not kept, 2." in markdown(vgg.page(Trained(study, configs)))


def make_runs(configs: dict, wrong: dict[str, float]) -> None:
    """Finished runs as training writes them; of those that are not named a fifth is wrong."""
    for (member, seed), config in configs.items():
        top1 = 1 - wrong.get(member, 0.2) - 0.001 * seed
        row = {"step": 1, "epoch": 1.0, "loss": 1.0, "top1": top1, "images_per_s": 50.0, "samples": 100}
        config.folder.mkdir(parents=True, exist_ok=True)
        (config.folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump()))
        rows = [json.dumps(row | {"split": split}) + "\n" for split in ("train", "val")]
        (config.folder / "metrics.jsonl").write_text("".join(rows))


def depth_page(index, folder, plain: dict[int, float], resnet: dict[int, float]) -> list[Verdict]:
    """Of made runs of these depths and shares of wrong answers."""
    from pipeline.study import depth
    from pipeline.study.trained import Trained

    wrong = {f"plain{each}": share for each, share in plain.items()}
    wrong |= {f"resnet{each}": share for each, share in resnet.items()}
    path = written(
        folder, study_tree(index, folder) | {"members": {net: {"model.name": net} for net in wrong}}
    )
    study = load(StudyConfig, path)
    configs = study.trainings(path)
    make_runs(configs, wrong)
    return depth.page(Trained(study, configs)).verdicts


def test_many_depths_are_compared_by_the_papers_pair(small_index, tmp_path):
    plain = {8: 0.5, 20: 0.3, 32: 0.25, 56: 0.4, 110: 0.6}
    found = depth_page(small_index, tmp_path, plain, {8: 0.5, 20: 0.2, 56: 0.1, 110: 0.3})
    claims = {each.claim: each for each in found}
    assert (
        claims["Plain nets: 56 layers have a higher test error than 20"].source == "He et al. 2015, figure 1"
    )
    lower = claims["Residual nets: 56 layers have a lower test error than 20"]
    assert (lower.source, lower.agrees) == ("He et al. 2015, figure 6 and table 6", AGREES)
    degrade = claims["Plain nets from 8 to 110 layers: deeper is better, until they degrade"]
    assert degrade.agrees == AGREES
    assert "(32 layers) lower than with 8 by 25.0 [25.0, 25.0] points, than with 110 by 35.0" in degrade.found
    assert len(found) == 6


def test_plain_nets_that_never_degrade_are_told_so_and_other_pairs_cite_no_figure(small_index, tmp_path):
    found = depth_page(small_index, tmp_path, {8: 0.5, 14: 0.4, 110: 0.3}, {8: 0.5, 14: 0.4})
    assert found[0].claim == "Plain nets: 110 layers have a higher training error than 8"
    assert {each.source for each in found[:4]} == {"He et al. 2015, section 4.2"}
    assert (found[4].source, found[4].agrees) == ("He et al. 2015, section 1", DIFFERS)
