"""Weights & Biases: real runs against a server on this machine that is well, away, silent or unwilling."""

import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import ROOT, quick_config
from PIL import Image
from wandb_server import KEY, serving

from pipeline.config import UserError
from pipeline.monitor import Monitor
from pipeline.monitor.confusion import keep_confusion, worst_classes
from pipeline.preempt import Preempted

WRITER = Path(__file__).parent / "wandb_writer.py"


@pytest.fixture
def home(tmp_path) -> dict[str, str]:
    """An environment without anybody's key, in which W&B waits two seconds where it may wait long."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    short = {f"WANDB_{wait}_TIMEOUT": "2" for wait in ("HTTP", "INIT", "FINISH")}
    return clean | short | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


def keyed(home: dict[str, str], url: str) -> dict[str, str]:
    return home | {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY}


def writer(folder: Path, first: int, last: int, env: dict[str, str], *words: str, **more) -> subprocess.Popen:
    command = [sys.executable, str(WRITER), str(folder), str(first), str(last), *words]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, env=env, text=True, **pipes, **more)


def ended(process: subprocess.Popen) -> str:
    """What it told, once it has ended: a process that waits for its server for ever is killed, and fails."""
    try:
        out, told = process.communicate("go on\n", timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, told
    assert out.endswith("closed\n")
    return told


def sync(folders: list[Path], environment: dict[str, str]) -> None:
    command = [shutil.which("wandb", path=Path(sys.executable).parent), "sync", "--include-online"]
    options = {"cwd": environment["HOME"], "check": True, "capture_output": True}
    subprocess.run([*command, *map(str, folders)], env=environment, **options)


def sent(server, run: Path) -> list[int]:
    """Steps of the training rows that the server has of a run, in the order of W&B's history."""
    rows = server.history((run / "wandb_id").read_text())
    return [row["step"] for row in rows if "train/top1" in row]


def test_no_outage_stops_a_run_or_loses_a_row(tmp_path, home):
    """Four runs at once: the server is away, silent, does not take the key, or falls silent in the run."""
    moods = {"silent": "hangs", "unwilling": "refuses", "later": "good"}
    with serving() as silent, serving() as unwilling, serving() as later, serving() as good:
        servers = {"silent": silent, "unwilling": unwilling, "later": later}
        urls = {name: server.url for name, server in servers.items()} | {"away": "http://127.0.0.1:9"}
        for name, server in servers.items():
            server.mood = moods[name]
        runs = {name: writer(tmp_path / name, 1, 500, keyed(home, url), "60") for name, url in urls.items()}
        for process in runs.values():
            assert process.stdout.readline() == "written\n"  # whatever the server does
        assert later.begun.wait(60)
        later.mood = "hangs"
        told = {name: ended(process) for name, process in runs.items()}
        for name in ("away", "silent", "unwilling"):
            assert "W&B cannot be reached, logging offline: " in told[name]
        assert "W&B did not end well: " in told["later"]
        for name, words in told.items():
            assert f"wandb sync --include-online {tmp_path / name}/wandb/" in words
            assert "Traceback" not in words
        folders = [folder for name in runs for folder in (tmp_path / name / "wandb").glob("*run-*-*")]
        good.runs |= later.runs  # the same server, well again
        sync(folders, keyed(home, good.url))
        for name in runs:
            assert set(sent(good, tmp_path / name)) == set(range(1, 501)), name


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_the_end_does_not_wait_for_a_service_that_stands_still_or_died(tmp_path, home, number):
    process = writer(tmp_path / "run", 1, 5, home, "5")
    while not list(tmp_path.glob("run/wandb/offline-run-*/*.wandb")):
        assert process.poll() is None
        time.sleep(0.1)
    (service,) = psutil.Process(process.pid).children()
    service.send_signal(number)
    process.stdin.write("go on\n")
    process.stdin.flush()
    try:
        assert process.wait(120) == 0
    finally:
        with suppress(psutil.NoSuchProcess):
            service.kill()
    told = ended(process)
    assert "W&B did not end" in told or "W&B is off from here on" in told
    assert "Traceback" not in told


def test_one_run_across_restarts_online_and_offline(tmp_path, home):
    with serving() as server:
        online = keyed(home, server.url)
        folder = tmp_path / "run"
        for first, last, environment in ((1, 4, home), (3, 8, online), (7, 9, home)):
            ended(writer(folder, first, last, environment))
        assert sent(server, folder) == [*range(3, 9)]
        sync(list((folder / "wandb").glob("offline-run-*")), online)
        assert sent(server, folder) == [*range(3, 9), *range(1, 5), *range(7, 10)]
        assert len(server.runs) == 1


def test_what_a_run_shows(tmp_path, home):
    """Config and code, rows, gradients by layer, system figures, pictures, the worst classes, the end."""
    folder = tmp_path / "run"
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    said = np.where(rng.random(60) < 0.6, labels, (labels + 1) % 3)
    keep_confusion(folder / "confusion.json", 5, "test", said, labels, ["ant", "bee", "cat"])
    np.savez(
        folder / "samples.npz",
        pictures=rng.integers(0, 256, (3, 8, 8, 3), np.uint8),
        labels=labels[:3],
        predictions=np.array([0, 1, 1]),
        classes=np.array(["ant", "bee", "cat"]),
    )
    with serving() as server:
        ended(writer(folder, 1, 5, keyed(home, server.url)))
        ((name, run),) = server.runs.items()
        rows, uploads = server.history(name), server.uploads
    assert run["config"]["seed"]["value"] == 3
    assert run["config"]["code"]["value"].keys() >= {"commit", "branch", "dirty", "remote", "torch", "dali"}
    assert run["commit"] == run["config"]["code"]["value"]["commit"]
    assert run["exit_code"] == 0
    train = {row["step"]: row for row in rows if "train/top1" in row}
    assert train[4]["train/loss"] == 0.25
    assert "train/loss" not in train[2]
    (gradients,) = [row for row in rows if "gradients/norm/fc" in row]
    told = {key: value for key, value in gradients.items() if key.startswith("gradients/")}
    assert math.isnan(told.pop("gradients/snr/fc"))
    assert told == {
        "gradients/norm/conv1": 0.5,
        "gradients/norm/fc": 2.0,
        "gradients/update_ratio/conv1": 0.001,
    }
    figures = json.loads(run["files"]["wandb-events.jsonl"][0])
    assert figures.keys() >= {"system.memory_percent", "system.proc.memory.rssMB"}
    (end,) = [row for row in rows if "samples" in row]
    assert end["step"] == 5
    assert end["samples"]["captions"] == ["ant", "bee", "cat, taken for bee"]
    for name in end["samples"]["filenames"]:
        assert Image.open(io.BytesIO(uploads[name])).format == "PNG"
    worst = uploads[end["worst_classes"]["path"]].decode()
    for each in worst_classes(said, labels, ["ant", "bee", "cat"]):
        assert f"<td>{each['class']}<td>{each['pictures']}<td>{100 * each['recall']:.1f} [" in worst


def test_w_and_b_is_told_how_a_run_ended(tmp_path, home, monkeypatch):
    """Preempted, failed, well; three starts of a run in one process."""
    config = quick_config(tmp_path, tmp_path, monitor={"wandb": True})
    row = {"step": 1, "epoch": 0.1, "split": "train", "loss": None, "top1": 0.5}
    with serving() as server:
        for key, value in keyed(home, server.url).items():
            monkeypatch.setenv(key, value)
        for error, code in ((Preempted, 75), (UserError, 1), (None, 0)):
            with suppress(Preempted, UserError), Monitor(config, 0, 10, first=True) as monitor:
                monitor.write(row)
                if error:
                    raise error
            assert server.runs[monitor.wandb_id]["exit_code"] == code
        assert len(server.history(monitor.wandb_id)) == 3


def test_no_secret_reaches_a_file_or_the_server(tmp_path, home):
    """Neither the key, nor a variable, nor the token in a remote's address, nor the text of a change."""
    code, folder = tmp_path / "code", tmp_path / "run"
    shutil.copytree(ROOT / "pipeline", code / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    remote = ["remote", "add", "origin", "https://hunter2:x@example.org/me/code.git"]
    for words in (["init"], ["add", "."], [*who, "commit", "-m", "all"], remote):
        subprocess.run(["git", "-C", str(code), *words], check=True, capture_output=True)
    with (code / "pipeline" / "cores.py").open("a") as file:
        file.write("PASSWORD = 'hunter2'\n")
    with serving() as server:
        environment = keyed(home, server.url) | {"PYTHONPATH": str(code), "SECRET": "hunter2"}
        ended(writer(folder, 1, 3, environment, cwd=code))
        ((_, run),) = server.runs.items()
    found = run["config"]["code"]["value"]
    assert found["dirty"] is True
    assert found["remote"] == "https://example.org/me/code.git"
    assert run["commit"] == found["commit"]
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert any(path.suffix == ".wandb" for path in files)
    for content in (*files.values(), *server.uploads.values(), json.dumps(run).encode()):
        assert b"hunter2" not in content
        assert KEY.encode() not in content
