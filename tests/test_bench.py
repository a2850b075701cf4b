"""The benchmark's pictures, its counting and its figures. No test judges a time."""

import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from launch import bench
from pipeline.bench import loading, photographs, table
from pipeline.bench.contestants import BY_NAME, CONTESTANTS
from pipeline.bench.loading import Plan, one_round
from pipeline.bench.made import make, size_of
from pipeline.bench.ratios import line
from pipeline.bench.timing import LOOKED_AT, Setting, Stream, cpu_seconds, measure, turns
from pipeline.config import Pictures, UserError

COUNT, BATCH, SIZE = 40, 10, 64


@pytest.fixture(scope="session")
def three_photographs(tmp_path_factory) -> dict[str, list[Path]]:
    """Three large pictures of two classes: waves under noise, so that they compress as photographs do."""
    folder = tmp_path_factory.mktemp("photographs")
    y, x = np.mgrid[:720, :960]
    for number in range(3):
        waves = np.sin(x / (17 + 9 * number)) + np.cos(y / (31 - 5 * number))
        tint = np.array([1.0, 0.6, 0.3]) if number else np.array([0.2, 0.7, 1.0])
        noise = np.random.default_rng(number).normal(0, 12, (720, 960, 3))
        pixels = 110 + 45 * waves[..., None] * tint + noise
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return {"first": [folder / "0.png"], "others": [folder / "1.png", folder / "2.png"]}


@pytest.fixture(scope="session")
def pictures(three_photographs, tmp_path_factory) -> Path:
    return photographs.make(three_photographs, tmp_path_factory.mktemp("bench") / "pictures", COUNT)


@pytest.fixture(scope="session")
def setting(pictures) -> Setting:
    mean, std = tuple(Pictures().mean), tuple(Pictures().std)
    data = str(pictures)
    return Setting("dali", data, data, BATCH, SIZE, 1, 2, 0, 0.05, 0.0, mean, std)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/*.jpg")}


def test_pictures_have_the_size_that_was_asked_for(pictures):
    found = contents(pictures)
    assert len(found) == COUNT
    assert {name.split("/")[0] for name in found} == {"first", "others"}
    assert sum(name.startswith("first/") for name in found) == pytest.approx(COUNT / 3, abs=1)
    shapes = [Image.open(io.BytesIO(content)).size for content in found.values()]
    assert set(shapes) == {(500, 375), (375, 500)}
    assert 0.05 < shapes.count((375, 500)) / COUNT < 0.5
    # One step of quality is about a tenth of the bytes up there.
    assert np.mean([len(content) for content in found.values()]) == pytest.approx(110_000, rel=0.12)
    # Every piece is another one.
    assert len(set(found.values())) == COUNT


def test_pictures_are_the_same_again_and_made_once(three_photographs, pictures, tmp_path):
    again = photographs.make(three_photographs, tmp_path / "again", COUNT)
    assert contents(again) == contents(pictures)
    assert contents(photographs.make(three_photographs, tmp_path / "other", COUNT, seed=1)) != contents(
        pictures
    )

    marked = next(again.glob("*/*.jpg"))
    marked.write_bytes(b"kept")
    photographs.make(three_photographs, again, COUNT)
    assert marked.read_bytes() == b"kept"
    photographs.make(three_photographs, again, COUNT + 3)
    assert len(contents(again)) == COUNT + 3
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_a_killed_making_leaves_nothing_that_looks_whole(three_photographs, tmp_path):
    broken = {**three_photographs, "zebra": [tmp_path / "zebra.jpg"]}
    broken["zebra"][0].write_bytes(three_photographs["first"][0].read_bytes()[:5000])
    with pytest.raises(UserError, match=r"zebra\.jpg: not a readable picture"):
        photographs.make(broken, tmp_path / "out", COUNT)
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob("*.partial")) == []


def test_mistakes_about_pictures_are_told(three_photographs, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="holds something else"):
        photographs.make(three_photographs, tmp_path / "mine", COUNT)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"

    small = tmp_path / "small.png"
    Image.new("RGB", (600, 400)).save(small)
    with pytest.raises(UserError, match=r"small\.png: 600x400; needs at least 500"):
        photographs.make({"one": [small]}, tmp_path / "out", COUNT)

    monkeypatch.setattr(photographs, "PHOTOGRAPHS", {"boats": [str(tmp_path / "none.jpg")]})
    with pytest.raises(UserError, match="apt-get install --no-install-recommends mate-backgrounds"):
        photographs.debian_photographs()


def told(pictures: float, seconds: float = 1.0, cpu: float = 1.0) -> dict:
    return {"pictures": pictures, "seconds": seconds, "cpu_seconds": cpu, "set": COUNT}


def test_ratios_are_taken_within_rounds_and_only_then_their_median():
    # The machine is twice as slow in the second round: the ratio of medians would be 200 / 300.
    ours = [told(400), told(200), told(300)]
    theirs = [told(200, cpu=0.5), told(400, seconds=4.0), told(330)]
    found = line(theirs, ours, threads=4, gpu_rates=[1000.0, 50.0])
    assert found["rate"] == {"median": 200.0, "low": 100.0, "high": 330.0}
    assert found["ratio"] == pytest.approx({"median": 0.5, "low": 0.5, "high": 1.1})
    assert found["per_core"] == {"median": 50.0, "low": 25.0, "high": 82.5}
    assert found["per_cpu_second"] == {"median": 400.0, "low": 330.0, "high": 400.0}
    assert found["cores_busy"] == 0.5
    assert found["cores_for"] == {"1000": 20.0, "50": 1.0}


@given(
    st.lists(st.floats(1, 1e5), min_size=1, max_size=7),
    st.floats(0.01, 100),
    st.integers(1, 128),
)
def test_a_constant_ratio_is_found_whatever_the_machine_does(rates, factor, threads):
    ours = [told(rate, cpu=0.3) for rate in rates]
    theirs = [told(rate * factor, seconds=2.0, cpu=0.3) for rate in rates]
    found = line(theirs, ours, threads, [])
    assert found["ratio"] == pytest.approx({"median": factor / 2, "low": factor / 2, "high": factor / 2})
    assert found["rate"]["low"] <= found["rate"]["median"] <= found["rate"]["high"]


def test_contestants_take_turns():
    one, two, three = list(CONTESTANTS)[:3]
    assert list(turns([one, two, three], 0)) == [one, two, three]
    assert list(turns([one, two, three], 1)) == [three, two, one]


def test_only_batches_after_the_warm_up_count_and_in_whole_strides():
    made = []

    def batches():
        while True:
            time.sleep(0.004)
            made.append(time.perf_counter())
            yield np.full((len(made) % 2 + 3, 2), 2.0)

    found = measure(Stream(17, batches(), stride=3), 0.05, 0.02, time.perf_counter())
    assert found["set"] == 17
    assert found["batches"] % 3 == 0
    assert found["seconds"] >= 0.05
    assert len(made) >= LOOKED_AT + 3 + found["batches"]
    last = made[-found["batches"] :]
    # The measured batches are the last that were asked for, and nothing was asked for in vain.
    assert found["pictures"] == sum(
        number % 2 + 3 for number in range(len(made) - found["batches"] + 1, len(made) + 1)
    )
    assert last[-1] - last[0] <= found["seconds"] <= last[-1] - made[-found["batches"] - 1] + 0.05
    assert (found["mean"], found["std"]) == (2.0, 0.0)


def test_cpu_seconds_count_the_workers():
    spin = (
        "import os, sys, time; from pipeline.bench.timing import cpu_seconds;"
        "worker = os.fork();\n"
        "end = time.process_time() + 0.3\n"
        "while time.process_time() < end: pass\n"
        "if worker == 0: time.sleep(30)\n"
        "time.sleep(0.2)\n"
        "while cpu_seconds() < 0.5: time.sleep(0.05)\n"
        "print(cpu_seconds()); os.kill(worker, 9)"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", spin],
        cwd=root,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=60,
    )
    assert 0.5 <= float(done.stdout) < 5
    assert cpu_seconds() > 0


def stream_of(name: str, setting: Setting) -> Stream:
    module, function = BY_NAME[name].stream.split(":")
    return getattr(importlib.import_module(module), function)(setting)


@pytest.fixture(scope="session")
def index(pictures, tmp_path_factory) -> Path:
    made = make(BY_NAME["files"], pictures, tmp_path_factory.mktemp("work"), None)
    assert made.failed is None
    assert made.bytes == size_of(pictures) + size_of(made.data)
    return made.data


@pytest.fixture(scope="session")
def ours(setting, index) -> dict:
    found = replace(setting, data=str(index))
    return measure(stream_of("files", found), found.seconds, found.warm_up, time.perf_counter())


@pytest.mark.parametrize("name", ["dali", "torchvision", "torchvision-io", "timm"])
def test_contestants_deliver_the_same_pictures(name, setting, ours):
    if name == "timm" and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed: uv sync --group bench")
    found = measure(stream_of(name, setting), setting.seconds, setting.warm_up, time.perf_counter())
    for one in (found, ours):
        assert one["set"] == COUNT
        assert one["pictures"] == one["batches"] * BATCH > 0
    # The looked-at batches are two epochs; only crops differ.
    assert LOOKED_AT * BATCH == 2 * COUNT
    assert found["mean"] == pytest.approx(ours["mean"], abs=0.08)
    assert found["std"] == pytest.approx(ours["std"], rel=0.08)
    assert ours["std"] > 0.5


@pytest.mark.parametrize("name", ["decode-dali", "decode-pillow"])
def test_limits_decode_every_picture(name, setting):
    found = measure(stream_of(name, setting), setting.seconds, setting.warm_up, time.perf_counter())
    assert (found["set"], found["mean"]) == (COUNT, None)
    assert found["pictures"] == found["batches"] * BATCH > 0


def test_a_contestant_that_fails_says_why_in_a_line(setting, tmp_path):
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "damaged.jpg").write_bytes(b"not a picture")
    found = one_round(replace(setting, pictures=str(tmp_path)), "pipeline.bench.limits:pillow")
    assert "UnidentifiedImageError" in found["failed"]
    assert "\n" not in found["failed"]
    assert one_round(setting, "no_such_loader:stream")["failed"] == "no_such_loader is not installed"
    assert "No such file" in one_round(setting, "x:y", python=str(tmp_path / "python"))["failed"]


def test_nothing_of_a_round_is_left_running(setting, tmp_path):
    (tmp_path / "leaves_workers.py").write_text(
        "import os, time\n"
        "def stream(setting):\n"
        "    worker = os.fork()\n"
        "    if worker == 0: time.sleep(300)\n"
        "    raise ValueError(f'worker {worker}')\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{tmp_path}" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    found = one_round(setting, "leaves_workers:stream", str(python))
    worker = int(found["failed"].rpartition(" ")[2])
    for _ in range(100):
        try:
            os.kill(worker, signal.SIGCONT)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return  # dead; whoever adopted it has not looked yet
        time.sleep(0.05)
    raise AssertionError(f"process {worker} still runs")


def test_a_variant_that_prepare_refuses_is_told(pictures, tmp_path):
    wrong = replace(BY_NAME["packed"], prepare=("--pack", "--max-side", "-3"))
    made = make(wrong, pictures, tmp_path, None)
    assert made.data is None
    assert "--max-side" in made.failed
    assert "--ffcv-python" in make(BY_NAME["ffcv-raw"], pictures, tmp_path, None).failed
    assert "No such file" in make(BY_NAME["ffcv-raw"], pictures, tmp_path, tmp_path / "none").failed


def run_bench(*words: str) -> subprocess.CompletedProcess:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "launch.bench", "loader", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=900)


def quick(pictures: Path, folder: Path) -> list[str]:
    words = ["--pictures", pictures, "--work", folder / "work", "--out", folder / "out", "--rounds", 2]
    words += ["--seconds", 0.2, "--warm-up", 0.05, "--batch", BATCH, "--size", SIZE, "--threads", 1]
    return [str(word) for word in words]


def results_of(folder: Path) -> tuple[dict, str, Image.Image]:
    out = folder / "out"
    results, text = json.loads((out / "loader.json").read_text()), (out / "loader.md").read_text()
    return results, text, Image.open(out / "loader.png")


def test_the_command_writes_figures_table_and_picture(pictures, tmp_path):
    only = ["--only", "decode-pillow,ffcv-raw", "--scaling", "", "--gpu-rate", "2500", "3500"]
    done = run_bench(*quick(pictures, tmp_path), *only)
    assert done.returncode == 0, done.stderr
    results, text, picture = results_of(tmp_path)

    assert results["setting"]["pictures"] == COUNT
    assert results["setting"]["gpu_rates"] == [2500.0, 3500.0]
    assert results["machine"]["processor"]
    assert {"torch", "nvidia-dali-cuda130"} <= set(results["machine"]["versions"])
    files, missing, pillow = results["contestants"]  # the reference is always there
    assert [files["name"], missing["name"], pillow["name"]] == ["files", "ffcv-raw", "decode-pillow"]
    assert files["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert "--ffcv-python" in missing["failed"]
    assert missing["rounds"] == []
    for one in (files, pillow):
        assert len(one["rounds"]) == 2
        rates = [each["pictures"] / each["seconds"] for each in one["rounds"]]
        assert one["rate"]["median"] == pytest.approx(np.mean(rates))
        assert all(each["pictures"] == each["batches"] * BATCH for each in one["rounds"])

    rows = [row for row in text.splitlines() if row.startswith("| ")]
    assert len(rows) == 3
    assert len({row.count("|") for row in rows}) == 1
    assert "cores for 2,500/s | cores for 3,500/s" in rows[0]
    assert rows[1].startswith("| ours, picture files (`files`)")
    assert "1.00 [1.00, 1.00]" in rows[1]
    assert "- ffcv-raw did not run: no interpreter with FFCV given" in text
    assert text in done.stdout
    assert picture.size[0] > 1000


@pytest.mark.slow
def test_all_contestants_run(pictures, tmp_path):
    done = run_bench(*quick(pictures, tmp_path), "--rounds", "1")
    assert done.returncode == 0, done.stderr
    results, _, _ = results_of(tmp_path)
    ran = {one["name"] for one in results["contestants"] if not one["failed"]}
    optional = {"timm", "ffcv-jpeg", "ffcv-raw"}
    assert set(BY_NAME) - optional <= ran
    for one in results["contestants"]:
        if one["failed"]:
            assert one["name"] in optional
        elif one["kind"] != "limit":
            assert all(each["set"] == COUNT for each in one["rounds"])
            assert one["rounds"][0]["mean"] == pytest.approx(
                results["contestants"][0]["rounds"][0]["mean"], abs=0.1
            )


def test_the_table_shows_scaling():
    rounds = [told(100), told(110)]
    found = []
    for threads, rate in ((4, 1.0), (1, 0.3), (2, 0.55)):
        one = [told(each["pictures"] * rate) for each in rounds]
        about = {"name": "files", "title": "ours", "kind": "ours", "threads": threads, "kilobytes": 110.0}
        found.append(about | {"failed": None, "rounds": one} | line(one, rounds, threads, []))
    setting = {"pictures": 7, "kilobytes": 110.0, "reference": "files", "rounds": 2, "seconds": 1.0}
    setting |= {"warm_up": 1.0, "batch": 8, "size": 32, "threads": 4, "gpu_rates": []}
    machine = {"processor": "P", "cores_of_machine": 4, "memory_gib": 8.0, "date": "d", "load": 0.0}
    machine |= {"versions": {"torch": "1"}, "command": "c"}
    text = table.markdown({"setting": setting, "machine": machine, "contestants": found})
    assert "| pictures/s with threads | 1 | 2 | 4 |" in text
    assert "| `files` | 32 | 58 | 105 |" in text
    assert text.count("(`files`)") == 1


def test_scaling_adds_fewer_threads(pictures, tmp_path):
    plan = Plan(pictures, tmp_path, ("files", "dali", "decode-pillow"), ("files",), 1, 1, 0, 8, 32, 6, ())
    found = [(entrant.contestant.name, entrant.threads) for entrant in loading.entries(plan)]
    assert found == [
        ("files", 6),
        ("files", 1),
        ("files", 2),
        ("files", 4),
        ("dali", 6),
        ("decode-pillow", 1),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "fils"], "--only fils: no such contestant; there are files,"),
        (["--scaling", "files,x"], "--scaling x: no such contestant"),
        (["--rounds", "0"], "--rounds 0: must be greater than 0"),
        (["--threads", "5000"], "--threads 5000: this process may use"),
        (["--gpu-rate", "0"], "--gpu-rate 0.0: must be greater than 0"),
        (["--warm-up", "-1"], "--warm-up -1.0: must not be negative"),
        (["--pictures", "PNGS"], r"a.png: not a JPEG; loaders are compared on"),
        (["--pictures", "NONE"], r"NONE: no pictures; --pictures needs a folder of <class>/\*.jpg"),
    ],
)
def test_mistakes_are_told_in_a_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "PNGS" / "dog").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "PNGS" / "dog" / "a.png")
    with pytest.raises(SystemExit) as ended:
        bench.main(["loader", *words])
    told = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert ended.value.code == 2
    assert len(told) == 1
    assert re.search(message, told[0])
