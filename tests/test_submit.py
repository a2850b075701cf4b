"""Submitting without a cluster: what is refused and written; arrays, scripts, and restarts."""

import errno
import fcntl
import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import config_tree
from hypothesis import given
from hypothesis import strategies as st

from launch import job, submit
from pipeline.claim import claim
from pipeline.cluster import client, script, submission
from pipeline.cluster.arrays import variants
from pipeline.cluster.nodes import nodes_that_fit
from pipeline.cluster.restarts import FAULTS, FRUITLESS, RESTARTS, History, progress
from pipeline.cluster.submission import Request
from pipeline.config import TrainConfig, UserError, load, parse


@pytest.fixture
def place(tmp_path, small_index, monkeypatch) -> Path:
    """The folder that jobs are submitted from, with a config."""
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(config_tree(small_index, Path("runs"))))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mistake(capsys, *words: str) -> str:
    """The one line that the words end with."""
    with pytest.raises(SystemExit) as ended:
        submit.main(list(words))
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train.bach=2"], "quick.yaml: train.bach: no such key; did you mean train.batch?"),
        (["--nodes", "5"], "train.batch: 24 pictures cannot be split over 5 ranks x 1"),
        (["--nodes", "two"], "--nodes two: write a number, or MIN-MAX as in 2-4"),
        (["--nodes", "2", "data.index=gone"], "data.index: no index in gone"),
        (["--array", "seed"], "--array seed: write KEY=VALUE"),
        (["--array", "seed=4..0"], "--array seed=4..0: runs backwards; write 0..4"),
        (["--array", "seed=0,0"], "--array seed=0,0: a value is missing or there twice"),
        (["--array", "seeds=0,1"], "seeds: no such key"),
        (["--sbatch", "C=a100"], "--sbatch C=a100: write a long option without its dashes"),
        (["--sbatch", "no-cheap"], "--sbatch no-cheap: no script has --cheap; they have exclusive, job-name"),
    ],
)
def test_a_mistake_is_a_line_and_nothing_is_written(place, capsys, words, line):
    assert line in mistake(capsys, "train", "quick.yaml", *words)
    assert not (place / "runs").exists()


@pytest.mark.parametrize("nodes", ["two", "0"])
def test_nodes_of_a_transfer_are_checked_as_those_of_the_training(place, capsys, nodes):
    words = ("chain", "quick.yaml", "--transfer", "transfer.yaml", "--transfer-nodes", nodes)
    line = f"--transfer-nodes {nodes}: write a number, or MIN-MAX as in 2-4"
    assert line in mistake(capsys, *words)


def test_without_slurm_the_plan_can_be_read_and_nothing_is_submitted(place, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(place))
    assert "sbatch: not found; submit on a login node" in mistake(capsys, "train", "quick.yaml")
    words = ["--nodes", "2", "--time", "10", "--sbatch", "signal=USR1@600"]
    submit.main(["train", "quick.yaml", *words, "--dry-run"])
    told = capsys.readouterr().out
    for line in (
        "#SBATCH --exclusive",
        "#SBATCH --mem=0",
        "#SBATCH --nodes=2",
        "#SBATCH --time=10",
        "#SBATCH --output=runs/quick/slurm/%j.log",
        "#SBATCH --requeue",
        "#SBATCH --signal=USR1@600",
    ):
        assert told.count(line) == 1


def test_a_small_job_shares_its_node(place, capsys):
    asked = ("no-exclusive", "mem=16G", "cpus-per-task=4", "no-kill")
    submit.main(["train", "quick.yaml", "--dry-run", *(f"--sbatch={word}" for word in asked)])
    told = capsys.readouterr().out
    assert "#SBATCH --exclusive" not in told
    assert "#SBATCH --mem=0" not in told
    for line in ("#SBATCH --mem=16G", "#SBATCH --cpus-per-task=4", "#SBATCH --no-kill"):
        assert told.count(f"\n{line}\n") == 1
    submit.main(["train", "quick.yaml", "--dry-run", "--sbatch=mem-per-gpu=64G"])
    told = capsys.readouterr().out
    assert "\n#SBATCH --mem-per-gpu=64G\n" in told
    assert "#SBATCH --mem=" not in told, "sbatch refuses both"


def test_a_chain_prepares_only_what_is_missing(place, capsys, small_index):
    recipe = "{optim: {lr: 0.1}, train: {batch: 8, epochs: 1}}"
    about = f"index: {small_index}, validation: 0.2"
    tasks = f"datasets: [{{name: one, {about}}}, {{name: two, {about}}}]"
    text = f"name: x\ncheckpoint: none\n{tasks}\nfinetuned: {recipe}\nscratch: {recipe}\n"
    (place / "transfer.yaml").write_text(text)
    words = ["chain", "quick.yaml", "--transfer", "transfer.yaml", "--dry-run", "--prepare", "mnist --verify"]
    submit.main(words)
    told = capsys.readouterr().out
    assert "\nprepare: " not in told
    for line in (
        "train: sbatch {0}/train.sbatch {0}/train.yaml",
        "transfer (afterok train): sbatch {0}/transfer.sbatch {0}/transfer.yaml --only %a",
        "report (afterok train and afterany transfer): sbatch {0}/report.sbatch launch.report runs/quick",
    ):
        assert f"\n{line.format('runs/quick/slurm')}\n" in told
    assert told.count("#SBATCH --array=0-1") == 1
    submit.main([*words, "data.index=data/new"])
    told = capsys.readouterr().out
    assert (
        "prepare: sbatch runs/quick/slurm/prepare.sbatch launch.prepare mnist --verify --out data/new" in told
    )
    assert "train (afterok prepare): sbatch" in told


def test_a_folder_in_use_is_refused(place, capsys, monkeypatch):
    """By somebody who trains without SLURM, too."""
    (place / "runs" / "quick").mkdir(parents=True)
    with (place / "runs" / "quick" / ".claim").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "runs/quick: another job works in this folder" in mistake(capsys, "train", "quick.yaml")


def test_sweeps_are_every_combination_with_a_name_of_its_own():
    assert variants([]) == [("", [])]
    found = variants(["seed=1..2", "optim.lr=0.1,5e-2"])
    assert found == [
        ("-seed1-lr0.1", ["seed=1", "optim.lr=0.1"]),
        ("-seed1-lr5e_2", ["seed=1", "optim.lr=5e-2"]),
        ("-seed2-lr0.1", ["seed=2", "optim.lr=0.1"]),
        ("-seed2-lr5e_2", ["seed=2", "optim.lr=5e-2"]),
    ]
    with pytest.raises(UserError, match="1,010 combinations"):
        variants(["seed=0..1009"])


def test_a_rendered_script_has_each_setting_once_and_its_own_body(tmp_path):
    text = script.render(
        "train", {"signal": "USR1@60", "qos": "high", "account": None, "no-kill": True}, tmp_path
    )
    assert text.count("--signal=") == 1
    for line in ("#SBATCH --signal=USR1@60", "#SBATCH --qos=high", "#SBATCH --no-kill"):
        assert f"\n{line}\n" in text
    assert "account" not in text
    assert text.index("#SBATCH --qos=high") < text.index("\nexport PYTHON")
    assert f"exec bash {tmp_path}/job.sh launch.train" in text
    assert sys.executable in text


@given(
    batch=st.integers(1, 400),
    nodes=st.integers(1, 12),
    ranks=st.integers(1, 8),
    mixup=st.sampled_from([0, 1]),
)
def test_as_many_nodes_are_used_as_divide_the_batch(batch, nodes, ranks, mixup):
    """Into even parts where pictures are mixed in pairs."""
    changes = {"train__batch": batch, "data__pictures__augment__mixup": mixup}
    config = parse(TrainConfig, config_tree(Path("index"), Path("runs"), **changes), "test")
    fitting = [count for count in range(1, nodes + 1) if batch % (count * ranks * (1 + mixup)) == 0]
    if fitting:
        assert nodes_that_fit(nodes, ranks, config) == max(fitting)
    else:
        with pytest.raises(UserError, match=r"train\.batch"):
            nodes_that_fit(nodes, ranks, config)


def lived(ends: list[tuple[int, int]]) -> list[bool]:
    """Whether a job goes on after each of its ends; an end is a code and how much further the run has got."""
    history, reached, went_on = History(), 0, []
    for code, further in ends:
        if history.begin(reached) is not None:
            return [*went_on, False]
        reached += further
        went_on.append(history.end(code, reached)[0])
        if not went_on[-1]:
            break
    return went_on


@given(st.lists(st.tuples(st.sampled_from([1, 75, 137]), st.integers(0, 2)), min_size=1, max_size=60))
def test_a_job_goes_on_as_long_as_that_may_help(ends):
    went_on = lived(ends)
    vain = [further == 0 for _, further in ends[: len(went_on)]]
    stuck = any(all(vain[i : i + FRUITLESS]) for i in range(len(vain) - FRUITLESS + 1))
    faults = sum(code != 75 for code, _ in ends[: len(went_on)])
    assert went_on[-1] == (not stuck and faults < FAULTS)


@pytest.mark.parametrize(("code", "again"), [(0, False), (2, False), (75, True), (1, True), (139, True)])
def test_what_an_end_means(code, again):
    assert lived([(code, 1)]) == [again]


def test_preempted_for_ever_it_ends_too():
    assert lived([(75, 1)] * 200) == [True] * (RESTARTS - 1) + [False]


def test_a_job_whose_node_dies_each_time_is_ended_at_its_start():
    """SLURM brings it back by itself: no end is ever seen."""
    history = History()
    assert [history.begin(7) is None for _ in range(3)] == [True, True, False]


def test_progress_counts_what_is_saved(tmp_path):
    assert progress(tmp_path) == 0
    for name in (
        "checkpoints/step_00000010.pt",
        "checkpoints/step_00000012.pt",
        "checkpoints/step_00000013.partial",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert progress(tmp_path) == 12
    (tmp_path / "transfer/cars/finetuned-0/checkpoints").mkdir(parents=True)
    (tmp_path / "transfer/cars/finetuned-0/checkpoints/step_00000005.pt").touch()
    (tmp_path / "transfer/cars/frozen-0.npz").touch()
    assert progress(tmp_path) == 12 + 5 + 1
    (tmp_path / "transfer" / "cub" / "analyses").mkdir(parents=True, exist_ok=True)
    (tmp_path / "transfer" / "cub" / "analyses" / "shots-5-0.npz").write_bytes(b"")
    assert progress(tmp_path) == 12 + 5 + 2


def test_features_that_grow_are_progress(tmp_path):
    """A transfer's first hours; they lie beside the runs."""
    run, growing = tmp_path / "runs/a/b", tmp_path / "runs/features/0123.partial"
    run.mkdir(parents=True)
    growing.mkdir(parents=True)
    seen = [progress(run)]
    for rows in (640, 1280):
        (growing / "progress.json").write_text(json.dumps({"rows": rows}))
        seen.append(progress(run))
    (growing / "progress.json").write_text("{")
    (tmp_path / "runs/features/0123.npy").touch()
    seen.append(progress(run))
    assert seen == [0, 640, 1280, 1]


def test_a_history_survives_what_a_node_wrote_last(tmp_path):
    History([1, 2], 1).write(tmp_path / "job.json")
    assert History.read(tmp_path / "job.json") == History([1, 2], 1)
    (tmp_path / "job.json").write_text('{"starts": [1')
    assert History.read(tmp_path / "job.json") == History()


@pytest.mark.parametrize(("note", "code"), [(None, 0), ("2\n", 2), ("", 0)])
def test_a_job_ends_with_its_ranks_code_or_without_one_with_sruns(note, code, tmp_path, monkeypatch, capsys):
    """A rank on a full disk leaves an empty note."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    (tmp_path / "slurm").mkdir()
    if note is not None:
        (tmp_path / "slurm/job-7.code").write_text(note)
    with pytest.raises(SystemExit) as ended:
        job.main(["end", "0", str(tmp_path)])
    assert ended.value.code == code
    assert ("done" if code == 0 else "a mistake") in capsys.readouterr().err


UNREACHABLE = "slurm_update error: Unable to contact slurm controller (connect failure)"
REFUSED = "Requested operation is presently disabled for job 7"


@pytest.mark.parametrize(
    ("answers", "refusal", "asked"),
    [
        ([""], None, 1),
        ([UNREACHABLE, "Socket timed out on send/recv operation", ""], None, 3),
        ([REFUSED, ""], REFUSED, 1),
        ([UNREACHABLE, REFUSED], REFUSED, 2),
    ],
)
def test_a_controller_that_does_not_answer_is_asked_again(answers, refusal, asked, tmp_path, monkeypatch):
    """This scontrol says one after the other of what SLURM's says; an empty one is a success."""
    (tmp_path / "answers").write_text("".join(f"{each}\n" for each in answers))
    stand_in(
        tmp_path,
        f"""
cd {tmp_path}
[ "$1" = show ] && exit 0
echo >> asked
line=$(sed -n "$(wc -l < asked)p" answers)
echo "$line" >&2
[ -z "$line" ]
""",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(client, "PAUSE", 0)
    assert client.requeue("7") == refusal
    assert (tmp_path / "asked").read_text().count("\n") == asked


def test_a_controller_that_never_answers_is_given_up(tmp_path, monkeypatch):
    stand_in(tmp_path, f"echo '{UNREACHABLE}' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(client, "PERSISTENCE", 0)
    assert client.requeue("7") == UNREACHABLE


def stand_in(folder: Path, script: str) -> None:
    (folder / "scontrol").write_text(f"#!/bin/bash\n{script}\n")
    (folder / "scontrol").chmod(0o755)


def test_another_array_of_the_recipe_leaves_the_first_ones_configs_alone(place):
    """Its tasks have the same numbers, and those of the first may still wait."""
    configs = [load(TrainConfig, "quick.yaml", [f"seed={seed}", f"name=quick-{seed}"]) for seed in range(4)]
    first, second = (
        submission.train(some, Path("runs/quick"), Request()) for some in (configs[:2], configs[2:])
    )
    for piece in (first, second, first):
        submission.write(piece)
    for piece, seeds in ((first, (0, 1)), (second, (2, 3))):
        (words,) = piece.words
        for task, seed in enumerate(seeds):
            assert load(TrainConfig, words.replace("%a", str(task)), []).seed == seed


def test_arrays_of_one_run_each_leave_each_others_configs_alone(place, capsys):
    """They lie in one folder, and the first may still wait; the recipe's own run has its own."""
    files = []
    for words in (["--array", "seed=3"], ["--array", "seed=4"], []):
        submit.main(["train", "quick.yaml", *words, "--dry-run"])
        files += re.findall(r"^train: sbatch \S+ (\S+)$", capsys.readouterr().out, re.MULTILINE)
    assert files[2] == "runs/quick/slurm/train.yaml"
    assert len(set(files)) == 3


def test_a_space_in_a_path_is_no_end(place):
    config = load(TrainConfig, "quick.yaml", ["runs=my runs"])
    piece = submission.train([config], config.folder, Request())
    submission.write(piece)
    text = piece.path.read_text()
    assert '#SBATCH --output="my runs/quick/slurm/%j.log"' in text
    assert "exec bash 'my runs/quick/slurm/job.sh' launch.train" in text


def test_without_locks_a_job_begins_and_tells(tmp_path, monkeypatch, capsys):
    """As on Lustre that is mounted without flock."""

    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with claim(tmp_path):
        assert "cannot be locked (No locks available); see to it that only one job" in capsys.readouterr().err
