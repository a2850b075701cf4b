"""Checkpoints: whole or passed over, the last and the best, written while training goes on."""

import errno
import math
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, config_tree, door, quick_config
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Checkpoint, UserError
from pipeline.data.index import open_index
from pipeline.monitor.metrics import read_rows
from pipeline.train import Job, checkpoint, fit, meter
from pipeline.train.ranks import join
from pipeline.train.writer import Writer

STATE = {"model": {"w": torch.arange(1000.0)}, "classes": ["a"]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, bytes]:
    """A run with checkpoints of steps 2 and 3, and the bytes of the newer one."""
    run = tmp_path_factory.mktemp("run")
    for step in (1, 2, 3):
        checkpoint.save(run / "checkpoints", step, STATE, keep=2)
    return run, (run / "checkpoints" / "step_00000003.pt").read_bytes()


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    for step in range(1, 8):
        checkpoint.save(tmp_path, step, STATE, keep=2, best=step == 3)
    assert [checkpoint.step_of(path) for path in checkpoint.numbered(tmp_path)] == [3, 6, 7]
    assert checkpoint.read(tmp_path / "best")["step"] == 3
    assert checkpoint.read(tmp_path / "latest")["step"] == 7
    checkpoint.save(tmp_path, 8, STATE, keep=2, best=True)
    assert [checkpoint.step_of(path) for path in checkpoint.numbered(tmp_path)] == [7, 8]


@pytest.mark.parametrize("left", [b"", b"\0" * 21, b"step_0000"])
def test_a_pointer_that_a_machines_death_emptied_names_nothing(left, tmp_path):
    folder = tmp_path / "checkpoints"
    for step in (1, 2, 3):
        checkpoint.save(folder, step, STATE, keep=1, best=step == 1)
    for name in ("best", "latest"):
        (folder / name).write_bytes(left)
    assert checkpoint.read(tmp_path)["step"] == 3
    with pytest.raises(UserError, match=r"checkpoint: .*best: names no checkpoint; give one of those"):
        checkpoint.read(folder / "best")
    checkpoint.save(folder, 4, STATE, keep=1)
    os.utime(folder / "best", (stamp := (folder / "step_00000003.pt").stat().st_mtime, stamp))
    for step in (5, 6):
        checkpoint.save(folder, step, STATE, keep=1)
    kept = [checkpoint.step_of(path) for path in checkpoint.numbered(folder)]
    assert kept == [1, 3, 6], "the best is still there, whichever it is, and what is newer goes"
    checkpoint.save(folder, 7, STATE, keep=1, best=True)
    assert [checkpoint.step_of(path) for path in checkpoint.numbered(folder)] == [7]


def test_an_old_one_that_somebody_else_removes_is_not_missed(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, STATE, keep=1)
    listed = checkpoint.numbered

    def removed(folder: Path) -> list[Path]:
        found = listed(folder)
        found[0].unlink()
        return found

    monkeypatch.setattr(checkpoint, "numbered", removed)
    checkpoint.save(tmp_path, 2, STATE, keep=1)
    assert [path.name for path in listed(tmp_path)] == ["step_00000002.pt"]


@given(cut=st.floats(0, 1, exclude_max=True))
def test_cut_off_at_any_byte_it_is_passed_over(saved, cut):
    run, whole = saved
    newest = run / "checkpoints" / "step_00000003.pt"
    newest.write_bytes(whole[: int(cut * len(whole))])
    file, state = checkpoint.find(run)
    assert file.name == "step_00000002.pt"
    assert torch.equal(state["model"]["w"], STATE["model"]["w"])


def test_a_damaged_checkpoint_is_told_and_left_alone(saved, capfd):
    run, whole = saved
    newest = run / "checkpoints" / "step_00000003.pt"
    flipped = bytearray(whole)
    flipped[whole.index(STATE["model"]["w"].numpy().tobytes()[400:]) + 99] ^= 1  # one bit of one weight
    for content in (bytes(flipped), b"", b"not a checkpoint"):
        newest.write_bytes(content)
        assert checkpoint.read(run)["step"] == 2
        told = capfd.readouterr().err
        assert "step_00000003.pt: damaged or cut off" in told
        assert "going on from step_00000002.pt" in told
        with pytest.raises(UserError, match=r"step_00000003\.pt: damaged or cut off"):
            checkpoint.read(newest)
        assert newest.read_bytes() == content
    (run / "checkpoints" / "step_00000002.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"step_00000003\.pt: damaged .*; no other is whole: remove"):
        checkpoint.read(run)


def test_what_was_passed_over_does_not_come_back(tmp_path):
    """Training goes on from 2, for 3 is damaged: the next newest is the one it writes then."""
    folder = tmp_path / "checkpoints"
    for step in (2, 30):
        checkpoint.save(folder, step, STATE, keep=2)
    (folder / "step_00000030.pt").write_bytes(b"")
    checkpoint.save(folder, 4, STATE, keep=2)
    assert checkpoint.read(tmp_path)["step"] == 4


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint.read(tmp_path / "nothing.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt: not a checkpoint of launch\.train"):
        checkpoint.read(tmp_path / "other.pt")
    torch.save({"format": 1}, tmp_path / "old.pt")
    with pytest.raises(UserError, match=r"old\.pt: a checkpoint of format 1, this program reads 2"):
        checkpoint.read(tmp_path / "old.pt")


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/owned",)

    torch.save({"format": 2, "step": 1, "model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"holds posix\.system beside tensors"):
        checkpoint.read(tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


def test_a_slow_disk_holds_up_the_next_save_and_not_the_caller(tmp_path, monkeypatch):
    may_sync = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda descriptor: may_sync.wait(30))
    writer = Writer(tmp_path, Checkpoint(), -math.inf)
    writer.save(1, STATE)
    assert not checkpoint.numbered(tmp_path / "checkpoints"), "it is not on the disk yet"
    threading.Timer(0.2, may_sync.set).start()
    writer.save(2, STATE)
    assert checkpoint.read(tmp_path / "checkpoints" / "step_00000001.pt")["step"] == 1
    writer.wait()
    assert checkpoint.read(tmp_path)["step"] == 2


def test_rows_are_on_the_disk_before_the_checkpoint_of_their_steps(tmp_path, monkeypatch):
    """And pointers before they are named: a machine that dies leaves the old one or the new one."""
    done, sync, rename = [], os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.partition(".")[0])
        sync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        done.append(f"to {new.name}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    for name in ("metrics.jsonl", "nonfinite.tsv"):
        (tmp_path / name).write_text("1\t\n")
    writer = Writer(tmp_path, Checkpoint(), -math.inf)
    writer.save(7, STATE)
    writer.wait()
    step = "step_00000007"
    rows = ["metrics", "nonfinite"]
    assert done == [step, *rows, f"to {step}.pt", "latest", "to latest", "checkpoints"]


def test_a_best_that_found_no_room_is_not_the_one_to_beat(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer, folder = Writer(tmp_path, Checkpoint(), 0.5), tmp_path / "checkpoints"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        writer.save(1, STATE, 0.7)
        writer.wait()
    assert (writer.failure is not None, writer.best) == (True, 0.5)
    writer.save(2, STATE)
    writer.save(3, STATE, 0.6)
    writer.save(4, STATE)
    writer.wait()
    assert (writer.failure, writer.best) == (None, 0.6)
    bests = [checkpoint.read(file)["best"] for file in (folder / "step_00000003.pt", tmp_path)]
    assert bests == [0.6, 0.6]
    assert checkpoint.read(folder / "best")["step"] == 3


def test_a_fault_of_ours_while_writing_is_raised(tmp_path):
    writer = Writer(tmp_path, Checkpoint(), -math.inf)
    writer.save(1, {"model": threading.Lock()})  # nothing that can be saved
    with pytest.raises(TypeError, match="pickle"):
        writer.wait()


# --- a full disk; the kernel's file-size limit stands for it: writes fail half-way, as on a full one -------


def run_with_limit(config: Path, size: int) -> subprocess.Popen:
    limit = f"ulimit -S -f {size // 1024}; exec {sys.executable} -m launch.train {config}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(["bash", "-c", limit], env=environment, stderr=subprocess.PIPE, text=True)


def written(path: Path, tree: dict) -> Path:
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_full_disk_costs_nothing_that_was_saved(small_index, tmp_path):
    tree = config_tree(small_index, tmp_path, train={"batch": 24, "epochs": 0.5, "device": "cpu"})
    assert door("launch.train", str(written(tmp_path / "c.yaml", tree))).returncode == 0
    whole = checkpoint.latest(tmp_path / "quick")
    content = whole.read_bytes()
    tree["train"]["epochs"] = 1.0  # another run would be refused: its folder is this one's
    tree["name"] = "full"
    process = run_with_limit(written(tmp_path / "c.yaml", tree), len(content) // 2)
    _, told = process.communicate(timeout=900)
    lines = [line for line in told.splitlines() if line.startswith("error:")]
    assert process.returncode == 2, told
    assert len(lines) == 1
    assert "step_00000011.pt: cannot be written" in lines[0]
    assert "free some space and run the same command again" in lines[0]
    assert "training goes on, and the next save is tried" in told
    assert "Traceback" not in told
    assert list((tmp_path / "full" / "checkpoints").iterdir()) == []
    assert [row["step"] for row in read_rows(tmp_path / "full" / "metrics.jsonl")] == list(range(1, 12))
    assert whole.read_bytes() == content


def test_when_there_is_room_again_the_next_save_succeeds(small_index, tmp_path):
    tree = config_tree(small_index, tmp_path, train__epochs=8.0, checkpoint={"every": 0.5})
    process = run_with_limit(written(tmp_path / "c.yaml", tree), 200_000)
    for line in process.stderr:
        if "the next save is tried" in line:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            break
    _, told = process.communicate(timeout=900)
    assert process.returncode == 0, told
    assert checkpoint.read(tmp_path / "quick")["step"] == 84


def test_rows_that_found_no_room_are_written_later(tmp_path):
    """The limit is this process's own for a moment; only rows are written meanwhile."""
    script = (
        "import resource, sys, pathlib\n"
        "from pipeline.monitor.metrics import MetricsFile\n"
        "file = MetricsFile(pathlib.Path(sys.argv[1]), 0)\n"
        "file.write({'step': 1, 'split': 'train'})\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60, hard))\n"
        "for step in (2, 3, 4):\n"
        "    file.write({'step': step, 'split': 'train'})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "file.write({'step': 5, 'split': 'train'})\n"
        "file.close()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", script, str(tmp_path / "metrics.jsonl")]
    got = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr
    assert got.stderr.count("kept in memory until there is room") == 1
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]


# --- the loop's use of them -------------------------------------------------------------------------------


def test_a_saved_state_is_of_its_step_though_training_goes_on(small_index, tmp_path):
    """Saved in the background or in the foreground, a checkpoint holds the same bits."""
    found = []
    with join("cpu") as ranks:
        for background in (True, False):
            how = {"every": 0.2, "keep": 20, "background": background}
            config = quick_config(small_index, tmp_path / str(background), checkpoint=how, train__ema=0.9)
            fit(Job(config, ranks, open_index(small_index).split("train")))
            found.append(
                [checkpoint.read(path) for path in checkpoint.numbered(config.folder / "checkpoints")]
            )
    assert len(found[0]) == len(found[1]) >= 5
    for first, second in zip(*found, strict=True):
        for key in ("model", "ema"):
            assert all(torch.equal(first[key][name], second[key][name]) for name in first[key])
        assert any(not torch.equal(first["model"][name], first["ema"][name]) for name in first["ema"])


def test_a_slow_save_is_not_time_of_the_steps_after_it(small_index, tmp_path, monkeypatch):
    """Each save takes a thousand seconds, by the clock that the meter reads."""
    late, save = [0.0], checkpoint.save

    def slow(*words) -> Path:
        late[0] += 1000
        return save(*words)

    monkeypatch.setattr(checkpoint, "save", slow)
    monkeypatch.setattr(meter, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + late[0]))
    how = {"every": 0.2, "background": False}
    config = quick_config(small_index, tmp_path, checkpoint=how, monitor__log_every=1, train__epochs=0.6)
    with join("cpu") as ranks:
        fit(Job(config, ranks, open_index(small_index).split("train")))
    rows = read_rows(config.folder / "metrics.jsonl")
    assert len(rows) == 7
    assert late[0] == 3000
    assert max(config.train.batch / row["images_per_s"] for row in rows) < 500


def test_a_run_goes_on_from_the_one_before_a_damaged_newest(small_index, tmp_path):
    tree = config_tree(small_index, tmp_path)
    config = written(tmp_path / "c.yaml", tree)
    assert door("launch.train", str(config)).returncode == 0
    expected = checkpoint.read(tmp_path / "quick")
    newest = checkpoint.latest(tmp_path / "quick")
    newest.write_bytes(newest.read_bytes()[:-1000])
    got = door("launch.train", str(config))
    assert got.returncode == 0, got.stderr
    assert f"{newest.name}: damaged or cut off" in got.stderr
    state = checkpoint.read(tmp_path / "quick")
    assert state["step"] == expected["step"]
    assert all(torch.equal(state["model"][name], value) for name, value in expected["model"].items())
    rows = read_rows(tmp_path / "quick" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 12))
    assert np.isfinite([row["loss"] for row in rows]).all()
