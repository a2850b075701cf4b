"""Kill a real job at random moments; what the same command then finishes is bit-identical."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import config_tree, torchrun

from pipeline.monitor.metrics import read_rows
from pipeline.train import checkpoint

STEPS = 32


def write_config(folder: Path, small_index: Path) -> str:
    """32 steps of 24 pictures, a checkpoint every 5 or 6 steps."""
    tree = config_tree(small_index, folder / "runs", checkpoint={"every": 0.5})
    tree["train"] |= {"epochs": 3.05}
    tree["data"] |= {"val": "val"}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return str(folder / "config.yaml")


def finish(ranks: int, config: str) -> None:
    process = torchrun(ranks, "-m", "launch.train", config)
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors


def workers(torchrun_pid: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(torchrun_pid), "-f", "launch.train"], capture_output=True, text=True
    )
    return [int(pid) for pid in found.stdout.split()]


def steps_done(run: Path) -> int:
    path = run / "metrics.jsonl"
    rows = read_rows(path) if path.exists() else []
    return max((row["step"] for row in rows), default=0)


def kill_at(step: int, ranks: int, config: str, run: Path, whom: str, dice: random.Random) -> None:
    """Starts the job and kills one rank, or torchrun and all its ranks, once the run has reached a step."""
    process = torchrun(ranks, "-m", "launch.train", config)
    deadline = time.monotonic() + 200
    while steps_done(run) < step and process.poll() is None:
        assert time.monotonic() < deadline, "the job does not get on"
        time.sleep(0.005)
    time.sleep(dice.uniform(0, 0.1))
    victims = workers(process.pid)  # torchrun's ranks are sessions of their own
    assert len(victims) == ranks, "the job ended before it could be killed"
    if whom == "one":
        victims = [dice.choice(victims)]
    else:
        os.kill(process.pid, signal.SIGKILL)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=120)
    saved = checkpoint.latest(run)
    assert saved is None or checkpoint.read(saved)["step"] < STEPS, "the job finished all the same"


@pytest.fixture(scope="module")
def undisturbed(small_index, tmp_path_factory):
    """The final state of a run that nobody disturbed, by number of ranks."""
    known = {}

    def final(ranks: int) -> dict:
        if ranks not in known:
            folder = tmp_path_factory.mktemp(f"undisturbed{ranks}")
            finish(ranks, write_config(folder, small_index))
            known[ranks] = checkpoint.read(folder / "runs" / "quick")
        return known[ranks]

    return final


def same_bits(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same_bits, a, b))
    return a == b


@pytest.mark.parametrize(
    ("whom", "ranks", "seed"),
    [
        ("one", 2, 1),
        ("all", 2, 2),
        pytest.param("one", 2, 3, marks=pytest.mark.slow),
        pytest.param("all", 2, 4, marks=pytest.mark.slow),
        # Over three ranks sums round by their order, which DDP's gradient buckets decide.
        pytest.param("all", 3, 5, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_in_the_same_bits(whom, ranks, seed, small_index, tmp_path, undisturbed):
    dice = random.Random(seed)
    config, run = write_config(tmp_path, small_index), tmp_path / "runs" / "quick"
    moments = sorted(dice.sample(range(1, STEPS - 1), 2))
    for step in moments:
        kill_at(step, ranks, config, run, whom, dice)
    finish(ranks, config)
    ended = checkpoint.read(run)
    expected = undisturbed(ranks)
    assert ended["step"] == expected["step"] == STEPS
    assert same_bits(ended["model"], expected["model"]), f"killed at steps {moments}"
    assert same_bits(ended["optimizer"], expected["optimizer"])
    rows = read_rows(run / "metrics.jsonl")
    for split, expected_steps in (("train", list(range(1, STEPS + 1))), ("val", [11, 21, 32])):
        assert [row["step"] for row in rows if row["split"] == split] == expected_steps


def test_asked_to_stop_it_saves_and_the_command_goes_on(small_index, tmp_path, undisturbed):
    """SIGTERM to torchrun reaches the ranks; they agree, save, and the rest is the undisturbed run."""
    config, run = write_config(tmp_path, small_index), tmp_path / "runs" / "quick"
    process = torchrun(2, "-m", "launch.train", config)
    while steps_done(run) < 7 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    stopped = checkpoint.read(run)["step"]
    assert 7 <= stopped < STEPS, errors
    assert steps_done(run) == stopped, "no step was lost"
    finish(2, config)
    assert same_bits(checkpoint.read(run)["model"], undisturbed(2)["model"])


def test_a_second_job_is_kept_out_of_a_live_runs_folder(small_index, tmp_path):
    config, run = write_config(tmp_path, small_index), tmp_path / "runs" / "quick"
    process = torchrun(1, "-m", "launch.train", config)
    while steps_done(run) < 1 and process.poll() is None:
        time.sleep(0.01)
    second = torchrun(1, "-m", "launch.train", config)
    _, errors = second.communicate(timeout=120)
    assert second.returncode != 0
    assert "another job works in this folder" in errors
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
