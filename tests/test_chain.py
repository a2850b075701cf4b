"""From raw pictures in folders to the transfer table in one command, on this machine."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, command, config_tree, door, drawn_pictures
from jobs import steps_done
from PIL import Image


def folders(root: Path, classes: int, seed: int) -> Path:
    """PNGs in ``train/<class>/`` and ``val/<class>/``, as anyone's own pictures."""
    for split, count in {"train": 48, "val": 24}.items():
        drawn = drawn_pictures(count, classes, seed)
        for number, (pixels, label) in enumerate(zip(drawn.pixels, drawn.labels, strict=True)):
            file = root / split / f"class{label}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return root


@pytest.fixture
def words(tmp_path) -> list[str]:
    """Of a chain in ``tmp_path``, whose pictures are nowhere yet but in their folders."""
    raw = folders(tmp_path / "first", 4, 0), folders(tmp_path / "second", 3, 1)
    first, second = (tmp_path / "data" / each.name for each in raw)
    train = {"batch": 12, "epochs": 3, "device": "cpu"}
    training = config_tree(first, tmp_path / "runs", train=train, data__val="val")
    recipe = {"optim": {"lr": 0.05}, "train": {"batch": 6, "steps": 2, "device": "cpu"}}
    dataset = {"name": "second", "index": str(second), "test": "val", "validation": 0.25, "seeds": 2}
    transfer = {
        "name": "any",
        "checkpoint": "any",
        "datasets": [dataset],
        "pictures": training["data"]["pictures"],
        "finetuned": recipe,
        "scratch": recipe,
    }
    for name, tree in {"train.yaml": training, "transfer.yaml": transfer}.items():
        (tmp_path / name).write_text(yaml.safe_dump(tree))
    about = [str(tmp_path / "train.yaml"), "--transfer", str(tmp_path / "transfer.yaml"), "--ranks", "2"]
    for each in raw:
        about += ["--prepare", f"imagefolder --root {each} --out {tmp_path / 'data' / each.name}"]
    return about


def test_mistakes_cost_a_line_and_nothing_is_begun(tmp_path, words):
    for wrong, told in [
        (words[:-2], r'datasets\.0\.index: no index in .*second; add --prepare "SOURCE --root DIR --out .*"'),
        ([*words[:-1], "cifar10"], "--prepare 'cifar10': say where to with --out FOLDER"),
        ([*words, "train.batch=13"], r"train\.batch: 13 pictures cannot be split over 2 ranks"),
        ([*words, "--ranks", "0"], r"--ranks: 0; give 1 or more"),
        ([*words[:-1], "imagefolder --root /Bob's --out x"], r"--prepare .*Bob's.*: no closing quotation"),
        ([*words, "train.bach=12"], r"train\.bach: no such key; did you mean train\.batch\?"),
    ]:
        found = door("launch.chain", *wrong)
        assert found.returncode == 2
        assert found.stderr.count("\n") == 1, found.stderr
        assert re.search(told, found.stderr), found.stderr
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "runs").exists()


WAITS = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
pathlib.Path({there!r}).touch()
time.sleep({seconds})
"""


@pytest.mark.parametrize(
    ("name", "inherited"),
    [*((name, "SIG_DFL") for name in ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT")), ("SIGHUP", "SIG_IGN")],
)
def test_a_step_is_asked_to_save_whatever_asked_the_chain(name, inherited, tmp_path):
    """Sent to the terminal's whole group, too; what nohup or a script's & has it ignore is ignored."""
    (tmp_path / "waits.py").write_text(WAITS.format(there=str(tmp_path / "there"), seconds=2))
    program = f"""
import signal
signal.signal(signal.{name}, signal.default_int_handler if {(name, inherited) == ("SIGINT", "SIG_DFL")}
              else signal.{inherited})
from launch.chain import Steps
with Steps() as steps:
    steps.python("waits")
"""
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path}, start_new_session=True
    )
    while not (tmp_path / "there").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, getattr(signal, name))
    assert process.wait(timeout=60) == (0 if inherited == "SIG_IGN" else 75)


@pytest.mark.slow
def test_stopped_in_training_it_goes_on_to_the_table_and_then_does_nothing_again(tmp_path, words):
    """By Ctrl-C: a terminal sends it to the command's whole group."""
    run, pipes = tmp_path / "runs" / "quick", {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # A shell that starts pytest in the background has it, and all below it, ignore Ctrl-C.
    program = ["env", "--default-signal=INT", sys.executable, "-m", "launch.chain", *words]
    process = subprocess.Popen(program, cwd=ROOT, text=True, start_new_session=True, **pipes)
    while steps_done(run) < 3 and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, told = process.communicate(timeout=600)
    assert process.returncode == 75, told
    assert "launch.transfer" not in out
    assert 3 <= steps_done(run) < 12

    found = command("launch.chain", *words)
    assert found.returncode == 0, found.stderr
    assert "launch.prepare" not in found.stdout, "both indexes are there"
    result = json.loads((run / "transfer" / "second.json").read_text())
    assert set(result["summary"]) == {"frozen", "finetuned", "scratch"}
    assert (run / "report.html").exists()
    assert steps_done(run) == 12

    stamps = {file: file.stat().st_mtime_ns for file in (run / "transfer" / "second").glob("*.npz")}
    found = command("launch.chain", *words, "optim.lr=0.2")
    assert found.returncode == 2
    assert "optim.lr: 0.2, but" in found.stderr
    assert "launch.transfer" not in found.stdout, "what does not end well is not followed"
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
