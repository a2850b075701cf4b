"""The step's benchmark: whose steps are run, that they train, what is counted, and its figures. No test
judges a time."""

import importlib.util
import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, command
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from launch import bench
from pipeline.bench.process import ask, cores
from pipeline.bench.step import contest, overhead, plot, rivals, saving, scaling, start, starting, table
from pipeline.bench.step.guests import GUESTS
from pipeline.bench.step.ours import steady_batch
from pipeline.bench.step.plan import Plan, Workload
from pipeline.bench.step.relay import OURS, Relay
from pipeline.bench.step.setting import WARM, Setting
from pipeline.models import build
from pipeline.preempt import PREEMPTED
from pipeline.train import checkpoint

CPU = torch.device("cpu")
SMALL = Workload("resnet8", 16, 6, rounds=2, steps=4)
FAST = {"lr": 0.02, "weight_decay": 0.1}
"""So that a few steps show, and what decays."""
TIMM = importlib.util.find_spec("timm") is not None
needs_timm = pytest.mark.skipif(not TIMM, reason="timm is not installed: uv sync --group bench")


def setting(**changes) -> Setting:
    return Setting(**asdict(SMALL) | {"folder": "unused", "classes": 10} | changes)


# --- turns ------------------------------------------------------------------------------------------------


def test_everybody_takes_turns_and_our_steps_are_numbered():
    told, trace = setting(), []

    def guest(name, batch):
        assert batch == "batch"
        return lambda: trace.append(name)

    relay = Relay(told, CPU, {name: partial(guest, name) for name in ("a", "b")})
    for batch in relay.batches("batch"):
        assert batch == "batch"
        trace.append(OURS)
    turn = SMALL.steps + 1
    warm = ["a"] * WARM + ["b"] * WARM + [OURS] * WARM
    there, back = ["a"] * turn + ["b"] * turn + [OURS] * turn, [OURS] * turn + ["b"] * turn + ["a"] * turn
    assert trace == [*warm, *there, *back, OURS]
    assert trace.count(OURS) == told.planned
    # The number that our loop gives its first measured step: one more than were done before it.
    done = [place for place, name in enumerate(trace) if name == OURS]
    for number, begins in enumerate((len(warm) + 2 * turn, len(warm) + 3 * turn)):
        assert relay.rounds[number][OURS]["first"] == told.first(number) == done.index(begins) + 2
        assert all(len(one["steps"]) == SMALL.steps for one in relay.rounds[number].values())


def test_steps_are_timed_and_what_runs_between_them_is_not():
    told = setting(rounds=1, steps=3)
    relay = Relay(told, CPU, {"slow": lambda batch: lambda: time.sleep(0.03)})
    for _ in relay.batches(None):
        time.sleep(0.002)
    (told,) = relay.rounds
    assert min(told["slow"]["steps"]) >= 0.03
    assert min(told[OURS]["steps"]) >= 0.002
    assert told["slow"]["cpu_seconds"] < 0.06, "it slept"


def test_a_guest_that_fails_sits_out():
    def refuses(batch):
        raise ValueError("no such precision\nat all")

    def fails(batch):
        return lambda: importlib.import_module("no_such_library")

    relay = Relay(setting(), CPU, {"refuses": refuses, "fails": fails, "runs": lambda batch: lambda: None})
    assert len(list(relay.batches(None))) == setting().planned
    assert relay.failed == {
        "refuses": "ValueError: no such precision",
        "fails": "no_such_library is not installed",
    }
    assert [set(one) for one in relay.rounds] == [{"runs", OURS}] * SMALL.rounds


# --- whose steps ------------------------------------------------------------------------------------------


def trained(make, told: Setting, steps: int, monkeypatch) -> dict[str, torch.Tensor]:
    """The weights of a guest's network after some steps."""
    made = []
    for module in ("rivals", "guests"):
        built = f"pipeline.bench.step.{module}.build"
        monkeypatch.setattr(built, lambda *words, **named: made.append(build(*words, **named)) or made[-1])
    step = make(told, CPU, steady_batch(told, CPU))
    for _ in range(steps):
        step()
    return dict(made[-1].named_parameters())


def oracle(told: Setting, steps: int, nesterov: bool, decay_all: bool) -> dict[str, torch.Tensor]:
    """A plain loop with torch's plain SGD from the same weights on the same batch."""
    torch.manual_seed(0)
    model, batch = build(told.model, told.classes), steady_batch(told, CPU)
    decayed = [one for one in model.parameters() if decay_all or one.ndim > 1]
    free = [one for one in model.parameters() if not decay_all and one.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": told.weight_decay}, {"params": free}]
    how = {"lr": told.lr, "momentum": told.momentum, "nesterov": nesterov, "foreach": False}
    optimizer = torch.optim.SGD(groups, **how)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(batch.images), batch.labels).backward()
        optimizer.step()
    return dict(model.named_parameters())


@pytest.mark.parametrize(
    ("name", "nesterov", "decay_all"),
    [
        ("bare", True, True),
        ("torchvision", False, True),
        pytest.param("timm", True, False, marks=needs_timm),
    ],
)
def test_guests_train_as_their_scripts_do(name, nesterov, decay_all, monkeypatch):
    told = setting(**FAST)
    found = trained(GUESTS[name].make, told, 3, monkeypatch)
    assert_trained(found, oracle(told, 3, nesterov, decay_all), told)


def assert_trained(found: dict, wanted: dict, told: Setting) -> None:
    """The same weights to rounding, and all of them others than at the start."""
    torch.manual_seed(0)
    for key, fresh in build(told.model, told.classes).named_parameters():
        torch.testing.assert_close(found[key], wanted[key], rtol=1e-3, atol=1e-5)
        assert not torch.equal(found[key], fresh), key


@pytest.mark.parametrize("library", ["torchvision", pytest.param("timm", marks=needs_timm)])
def test_rivals_have_their_own_network_where_it_is_ours_under_another_roof(library):
    told = setting(model="resnet18", size=32)
    if library == "torchvision":
        from torchvision.models import resnet18 as own
    else:
        from timm.models import resnet18 as own
    theirs = rivals.network(told, partial(own, num_classes=10))
    ours = build("resnet18", 10)
    assert type(theirs) is not type(ours)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = steady_batch(told, CPU).images
    torch.testing.assert_close(theirs(images), ours(images), rtol=1e-4, atol=1e-5)
    # Another network of that name, or none, is not compared with ours.
    assert type(rivals.network(told, partial(own, num_classes=11))) is type(ours)
    assert type(rivals.network(told, None)) is type(ours)


@given(st.integers(1, 9), st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_accuracy_counts_answers_among_the_first(count, classes, seed):
    draws = np.random.default_rng(seed)
    output, target = draws.normal(size=(count, classes)), draws.integers(classes, size=count)
    ranks = [int(np.sum(row > row[answer])) for row, answer in zip(output, target, strict=True)]
    at = (1, min(5, classes))
    found = [float(one) for one in rivals.accuracy(torch.tensor(output), torch.tensor(target), at)]
    assert found == pytest.approx([100 * np.mean([rank < k for rank in ranks]) for k in at], rel=1e-5)


def test_meters_print_the_median_of_the_last_values_and_the_mean_of_all():
    meters, lines = rivals.Meters(), []
    for number in range(31):
        meters.update(2, loss=float(number))
        lines.append(meters.told())
    assert [number for number, line in enumerate(lines) if line] == [0, 10, 20, 30]
    assert lines[30] == "loss: 20.0000 (15.0000)"  # torch's median of 11..30 is the lower one of two


def test_a_precision_that_a_script_lacks_is_told():
    with pytest.raises(ValueError, match="torchvision's script has no bf16 on cpu"):
        rivals.torchvision(setting(precision="bf16"), CPU, steady_batch(setting(), CPU))


# --- real processes ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def asked(tmp_path_factory) -> Setting:
    """Our loop and all guests that need no compiler, rows every second step, looks every fourth."""
    guests = ["bare", "again", "ddp", "torchvision", *["timm"] * TIMM]
    changes = {"monitor.log_every": overhead.ROW_EVERY, "monitor.gradients_every": overhead.LOOK_EVERY}
    folder = str(tmp_path_factory.mktemp("step"))
    return setting(folder=folder, guests=guests, changes=changes, **FAST)


@pytest.fixture(scope="session")
def told(asked) -> dict:
    words = {"setting": asdict(asked), "with_parts": True}
    return ask("pipeline.bench.step.ours:rounds", words, cores(1), 250.0)


def test_our_loop_runs_as_it_is(asked, told):
    assert "failed" not in told, told["errors"]
    # The last step always has a row, and a look like the first one.
    assert (asked.planned, told["rows"]) == (13, {"train": 6 + 1, "gradients": 3 + 2})
    assert told["failed_guests"] == {}
    assert len(told["rounds"]) == SMALL.rounds
    for one in told["rounds"]:
        assert set(one) == {OURS, "bare", "again", "ddp", "torchvision", *["timm"] * TIMM}
        assert all(len(turn["steps"]) == SMALL.steps for turn in one.values())
        assert all(min(turn["steps"]) > 0 for turn in one.values())
    numbers = sum(one.numel() for one in build("resnet8", 10).parameters())
    assert told["checkpoint_bytes"] > 2 * 4 * numbers, "weights and momentum"
    assert min(told["parts"].values()) > 0


def test_our_loop_trains_as_it_does(asked, told):
    weights = checkpoint.read(Path(asked.folder) / "step")["model"]
    wanted = oracle(asked, asked.planned, nesterov=True, decay_all=False)
    assert_trained(weights, wanted, asked)


def test_figures_come_out_of_real_rounds(told):
    names = [one["name"] for one in contest.lines(told, SMALL)]
    assert names[0] == OURS
    assert "torchvision" in names
    found = overhead.figures(told["rounds"])
    assert found["bare"]["low"] > 0
    assert found.keys() == {"bare", "again", "ddp", "step", "step_with_row", "row", "look"}


def test_a_start_is_told_part_by_part(tmp_path):
    plan = Plan((SMALL,), tmp_path, 1, 1, "cpu", "fp32")
    config = starting.write_config(plan, tmp_path)
    begun = time.time()
    found = starting.start(config, starting.CASES[0], 0, str(tmp_path / "compiled"))
    passed = time.time() - begun
    wanted = ["launcher", "Python", "config", *(part for part, _ in start.IMPORTS)]
    assert list(found) == [*wanted, *(part for part, _, _ in start.MARKS)]
    assert 0 < sum(found.values()) < passed + 0.02
    assert found["torch"] > 0.1, "no torch is imported faster"


def running(folder: Path) -> list[str]:
    """The commands of processes that were told of this folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(file.read_text())
    return [each for each in found if f"{folder}/step-" in each]


def test_asked_to_end_it_leaves_nothing_running(tmp_path):
    words = ["--only", "saving", "--work", str(tmp_path), "--out", str(tmp_path / "out"), "--threads", "1"]
    process = subprocess.Popen([sys.executable, "-m", "launch.bench", "step", *words], cwd=ROOT)
    try:
        for _ in range(600):
            if running(tmp_path):
                break
            time.sleep(0.1)
        process.terminate()
        assert process.wait(60) == PREEMPTED
    finally:
        process.kill()
    assert running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


# --- figures ----------------------------------------------------------------------------------------------

seconds = st.floats(1e-3, 10)


@given(st.lists(seconds, min_size=1, max_size=6), st.floats(0.1, 10), st.integers(1, 5))
def test_a_constant_ratio_is_found_whatever_the_machine_does(paces, factor, steps):
    def turn(pace):
        return {"steps": [pace] * steps, "cpu_seconds": 2 * pace * steps}

    rounds = [{OURS: turn(pace), "torchvision": turn(pace * factor)} for pace in paces]
    failed = {"timm": "timm is not installed"}
    ours, theirs, missing = contest.lines({"rounds": rounds, "failed_guests": failed}, SMALL)
    assert (ours["name"], theirs["name"], missing["name"]) == (OURS, "torchvision", "timm")
    assert theirs["faster"] == pytest.approx(dict.fromkeys(("median", "low", "high"), factor))
    assert ours["faster"] == pytest.approx(dict.fromkeys(("median", "low", "high"), 1.0))
    assert ours["rate"]["high"] == pytest.approx(SMALL.batch / min(paces))
    assert theirs["cpu_seconds"]["high"] == pytest.approx(2 * factor * max(paces))
    assert missing["failed"] == "timm is not installed"


@given(
    st.lists(seconds, min_size=1, max_size=5),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.integers(0, 11),
)
def test_rows_and_looks_are_told_from_steps_without(paces, share, row, look, first):
    rounds = []
    for pace in paces:
        told = {name: {"steps": [pace] * 8} for name in overhead.GUESTS}
        numbers = range(first, first + 8)
        extra = [0 if n % 2 else row if n % 4 else row + look for n in numbers]
        told[OURS] = {"first": first, "steps": [pace * (1 + share + one) for one in extra]}
        rounds.append(told)
    found = overhead.figures(rounds)
    middle = float(np.median(paces))
    assert found["step"]["median"] == pytest.approx(share, abs=1e-6)
    assert found["step_with_row"]["median"] == pytest.approx(share + row, abs=1e-6)
    assert found["row"]["median"] == pytest.approx(row * middle, abs=1e-6)
    assert found["look"]["median"] == pytest.approx(look * middle, abs=1e-6)
    assert (found["again"]["median"], found["bare"]["median"]) == (0, middle)


@given(seconds, st.floats(0, 5), st.floats(0, 0.2), st.integers(1, 60))
def test_a_save_is_told_from_the_steps_behind_it(quiet, held, slowed, first):
    numbers = range(first, first + 4 * saving.EVERY)
    extra = [
        held if n % saving.EVERY == 0 else slowed if n % saving.EVERY < saving.EVERY // 2 else 0.0
        for n in numbers
    ]
    found = saving.figures({"first": first, "steps": [quiet + one for one in extra]})
    assert found["step"] == pytest.approx(quiet)
    assert found["held"]["median"] == pytest.approx(held, abs=1e-6)
    assert found["after"]["median"] == pytest.approx((saving.EVERY // 2 - 1) * slowed, abs=1e-6)


def test_efficiency_is_taken_within_a_run():
    # The machine is twice as slow in the second run.
    rates = {"alone": [100.0, 50.0], "ddp": [180.0, 95.0], "apart": [200.0, 100.0], "threads": [150.0, 75.0]}
    found = scaling.figures(rates, 2)
    assert found["alone"]["efficiency"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert found["ddp"]["efficiency"] == pytest.approx({"median": 0.925, "low": 0.9, "high": 0.95})
    assert found["ddp"]["rate"] == {"median": 137.5, "low": 95.0, "high": 180.0}


def test_no_ranks_are_compared_on_one_core_or_a_gpu(tmp_path):
    for threads, device in ((1, "cpu"), (2, "cuda")):
        plan = Plan((SMALL,), tmp_path, 3, threads, device, "fp32")
        assert (scaling.count(plan), scaling.run(plan, None)) == (0, None)


def results() -> dict:
    """As ``run`` gives them, of rounds that are made up."""
    steps = {OURS: 0.1, "bare": 0.098, "torchvision": 0.13, "timm": 0.12}
    rounds = [{name: {"steps": [pace] * 2, "cpu_seconds": 4 * pace} for name, pace in steps.items()}] * 2
    lines = contest.lines({"rounds": rounds, "failed_guests": {"timm-tuned": "no compiler"}}, SMALL)
    loop = {name: {"steps": [0.1] * 8} for name in overhead.GUESTS}
    loop[OURS] = {"first": 1, "steps": [0.101, 0.102, 0.101, 0.104] * 2}
    case = {"title": "python", "told": [{}] * 3, "total": {"median": 6.0, "low": 5.0, "high": 7.0}}
    saved = saving.figures({"first": 20, "steps": ([0.3] + [0.1] * 19) * 2}) | {"bytes": 2e8}
    rates = {name: [100.0] for name in scaling.CASES}
    about = asdict(SMALL)
    return {
        "machine": {"processor": "P", "cores_of_machine": 2, "memory_gib": 8.0, "date": "d", "load": 0.0}
        | {"versions": {"torch": "1"}, "command": "c"},
        "setting": {"threads": 2, "precision": "fp32", "device": "cpu"},
        "contest": [about | {"compiled": lines, "plain": lines}],
        "overhead": about | overhead.figures([loop] * 3) | {"parts": {"gradient checked": 0.0002}},
        "scaling": about | {"ranks": 2} | scaling.figures(rates, 2),
        "start": about | {"cases": [case | {"parts": {"torch": 4.0, "first step": 2.0}}]},
        "saving": about | {"every": 20, "background": saved, "foreground": saved},
    }


def test_the_table_shows_every_section():
    text = table.markdown(results())
    assert "| ours, compiled | 100.0 [100.0, 100.0] | 200.0 | 60.0 [60.0, 60.0] | 1 |  |" in text
    assert "| torchvision, references/classification/train.py | 130.0 [130.0, 130.0] | 260.0 | 46.2" in text
    assert "| 1.30 [1.30, 1.30] | 1.30 [1.30, 1.30] |" in text
    assert "--torchcompile did not run: no compiler." in text
    assert "| our step with a row of metrics | +2.00% [+2.00%, +2.00%] |" in text
    assert "| a look at the gradients' flow, every 100 steps | 2.0 [2.0, 2.0] | 0.02% |" in text
    assert "| gradient checked | 0.200 | 0.20% |" in text
    assert "| 2 ranks on 2 cores, DDP | 100 [100, 100] | 0.50 [0.50, 0.50] |" in text
    assert "| **all** | **6.0** |" in text
    assert "| in the background | 200.0 [200.0, 200.0] | 0.0 [0.0, 0.0] |" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_sections_that_were_not_run_are_not_shown(tmp_path):
    whole = results()
    assert table.markdown({key: whole[key] for key in ("machine", "setting", "saving")}).count("\n## ") == 1
    assert plot.draw({"saving": whole["saving"]}) is None
    for part in ("contest", "start"):
        (tmp_path / "one.png").write_bytes(plot.draw({part: whole[part]}))
        assert Image.open(tmp_path / "one.png").size[0] > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "resnet21", "resnet8"], "model.name: unknown name 'resnet21'"),
        (["--model", "resnet8"], "--size: 2 given for 1 of --model"),
        (["--steps", "2", "0"], "--steps 0: must be greater than 0"),
        (["--runs", "-1"], "--runs -1: must be greater than 0"),
        (["--threads", "5000"], "--threads 5000: this process may use"),
        (["--only", "contest,sped"], "--only sped: no such section; there are contest, overhead"),
    ],
)
def test_mistakes_are_told_in_a_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        bench.main(["step", *words])
    assert ended.value.code == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert message in line


@pytest.mark.slow
def test_the_command_writes_figures_table_and_picture(tmp_path):
    words = [
        "--model",
        "resnet8",
        "--size",
        "16",
        "--batch",
        "6",
        "--rounds",
        "2",
        "--steps",
        "4",
        "--runs",
        "1",
    ]
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    done = command("launch.bench", "step", *words, *folders, timeout=1500)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "step.json").read_text())
    assert {one["name"] for one in found["contest"][0]["compiled"] if not one["failed"]} >= {OURS, "bare"}
    assert found["scaling"] is None or found["scaling"]["ddp"]["efficiency"]["median"] > 0
    assert {case["name"] for case in found["start"]["cases"]} == {case.name for case in starting.CASES}
    assert found["saving"]["background"]["bytes"] == found["saving"]["foreground"]["bytes"]
    text = (tmp_path / "out" / "step.md").read_text()
    assert text in done.stdout
    assert text.count("\n## ") >= 4
    assert Image.open(tmp_path / "out" / "step.png").size[0] > 1000
    assert list((tmp_path / "work").iterdir()) == [], "nothing is left behind"
    assert not Path("data/bench/step").exists()
