"""The step's benchmark: turns, whose steps are run, that they train. No test judges a time."""

import importlib.util
import json
import os
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
from step_players import TURN

from pipeline.bench.process import cores
from pipeline.bench.step import contest, overhead, rivals, scaling, start, starting
from pipeline.bench.step.guests import OWN, RIVALS
from pipeline.bench.step.ours import steady_batch
from pipeline.bench.step.plan import OURS, Plan, Workload
from pipeline.bench.step.players import Entrant, Played, Player, play, units
from pipeline.bench.step.setting import WARM, Setting
from pipeline.bench.step.watch import Watch
from pipeline.config import UserError
from pipeline.models import build
from pipeline.preempt import PREEMPTED
from pipeline.progress import Bar
from pipeline.train import checkpoint

CPU = torch.device("cpu")
SMALL = Workload("resnet8", 16, 6, rounds=2, steps=4)
FAST = {"lr": 0.02, "weight_decay": 0.1}
"""So that a few steps show, and what decays."""
TIMM = importlib.util.find_spec("timm") is not None
needs_timm = pytest.mark.skipif(not TIMM, reason="timm is not installed: uv sync --group bench")


def setting(**changes) -> Setting:
    return Setting(**asdict(SMALL) | {"folder": "unused", "classes": 10} | changes)


def planned(folder: Path, threads: int = 1) -> Plan:
    return Plan((SMALL,), folder, 1, threads, "cpu", "fp32")


@pytest.fixture
def bar() -> Bar:
    return Bar("measure", None, "parts", show=False)


# --- turns ------------------------------------------------------------------------------------------------


def entrants(**fails: str) -> dict[str, Entrant]:
    """By name, of contestants that fail in one way or another."""
    return {
        name: Entrant("tests.step_players:plays", {"name": name, "fails": how}, cores(1))
        for name, how in fails.items()
    }


def test_everybody_takes_turns_and_nobody_runs_meanwhile(bar):
    played = play(entrants(a="", b="", c=""), 2, 60.0, bar)
    assert [list(told) for told in played.rounds] == [["a", "b", "c"], ["c", "b", "a"]]
    times = [time for told in played.rounds for each in told.values() for time in each["turn"]]
    assert times == sorted(times)
    assert all(each["name"] == name for told in played.rounds for name, each in told.items())
    assert played.last == {name: {"count": 2} for name in "abc"}
    assert played.failed == {}
    assert bar.done == units(3, 2)


def test_some_have_their_turn_at_once(bar):
    played = play(entrants(a="", b="", c=""), 2, 60.0, bar, together=[("a",), ("b", "c")])
    for told in played.rounds:
        (begun_a, ended_a), (begun_b, ended_b), (begun_c, ended_c) = (told[name]["turn"] for name in "abc")
        assert max(begun_b, begun_c) < min(ended_b, ended_c)
        assert ended_a < min(begun_b, begun_c) or begun_a > max(ended_b, ended_c)


def test_who_fails_sits_out_and_the_others_play(bar):
    played = play(entrants(first="at first", turn="at its turn", silent="silently", well=""), 3, 60.0, bar)
    assert {name: told["failed"] for name, told in played.failed.items()} == {
        "first": "ValueError: no such precision",
        "turn": "no_such_library is not installed",
        "silent": "ended with code 3",
    }
    assert "Traceback" in played.failed["turn"]["errors"]
    assert [set(told) for told in played.rounds] == [{"well"}] * 3
    played.need("well")
    with pytest.raises(RuntimeError, match="turn: no_such_library"):
        played.need("well", "turn")


def test_a_users_mistake_is_told_as_one():
    played = Played(failed={OURS: {"failed": "UserError: train.device: no GPU", "errors": ""}})
    with pytest.raises(UserError, match=r"^train\.device: no GPU$"):
        played.need(OURS)


def test_who_does_not_answer_is_given_up(bar):
    begun = time.monotonic()
    played = play(entrants(a=""), 1, 0.0, bar)
    assert played.failed["a"]["failed"] == "no answer after 0 s"
    assert time.monotonic() - begun < 20


def test_who_does_not_answer_runs_on_in_nobodys_turn():
    (entrant,) = entrants(a="").values()
    with Player(entrant, 0.0) as player:
        assert player._process.poll() is None
        assert player.answer()["failed"] == "no answer after 0 s"
        assert player._process.poll() is not None


def test_steps_are_timed_and_what_runs_between_them_is_not():
    watch = Watch(CPU)
    for _ in range(3):
        with watch:
            time.sleep(TURN)
        time.sleep(2 * TURN)
    told = watch.told()
    assert len(told["steps"]) == 3
    assert TURN <= min(told["steps"]) < 2 * TURN
    assert told["cpu_seconds"] < TURN, "it slept"


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
    found = trained((OWN | RIVALS)[name], told, 3, monkeypatch)
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

ROWS = {"monitor.log_every": overhead.ROW_EVERY, "monitor.gradients_every": overhead.LOOK_EVERY}


@pytest.fixture(scope="session")
def asked(tmp_path_factory) -> Setting:
    """Our loop with rows every second step and looks every fourth."""
    return setting(folder=str(tmp_path_factory.mktemp("step")), changes=ROWS, **FAST)


@pytest.fixture(scope="session")
def played(asked) -> Played:
    """Our loop and a bare step."""
    words = {"setting": asdict(asked)}
    loop = Entrant("pipeline.bench.step.ours:asked", words | {"with_parts": True}, cores(1))
    bare = Entrant("pipeline.bench.step.guests:asked", words | {"name": "bare"}, cores(1))
    with Bar("measure", None, "parts", show=False) as bar:
        found = play({OURS: loop, "bare": bare}, SMALL.rounds, 250.0, bar)
    found.need(OURS, "bare")
    return found


def test_our_loop_runs_as_it_is(asked, played):
    last = played.last[OURS]
    # The last step always has a row, and a look like the first one.
    assert (asked.planned, last["rows"]) == (13, {"train": 6 + 1, "gradients": 3 + 2})
    numbers = sum(one.numel() for one in build("resnet8", 10).parameters())
    assert last["checkpoint_bytes"] > 2 * 4 * numbers, "weights and momentum"
    assert min(last["parts"].values()) > 0


def test_turns_are_measured_and_numbered(asked, played):
    assert len(played.rounds) == SMALL.rounds
    for number, told in enumerate(played.rounds):
        assert told[OURS]["first"] == asked.first(number) == WARM + number * (1 + SMALL.steps) + 2
        for turn in told.values():
            assert len(turn["steps"]) == SMALL.steps
            assert min(turn["steps"]) > 0


def test_our_loop_trains_as_it_does(asked, played):
    weights = checkpoint.read(Path(asked.folder) / "step")["model"]
    wanted = oracle(asked, asked.planned, nesterov=True, decay_all=False)
    assert_trained(weights, wanted, asked)


def test_figures_come_out_of_real_rounds(played):
    rounds = [told | {"again": told["bare"]} for told in played.rounds]
    found = overhead.figures(rounds)
    assert found["bare"]["low"] > 0
    assert found["again"] == dict.fromkeys(("median", "low", "high"), 0)


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_ranks_take_turns_with_single_ones(tmp_path, bar):
    plan = planned(tmp_path, threads=2)
    (found,) = scaling.run(plan, bar)
    assert bar.done == scaling.count(plan)
    assert [len(told) for told in found["told"]] == [5] * SMALL.rounds
    assert all(found[case]["efficiency"]["low"] > 0 for case in scaling.cases(plan))
    assert list(tmp_path.iterdir()) == []


def test_a_start_is_told_part_by_part(tmp_path):
    plan = planned(tmp_path)
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
        while not running(tmp_path) and process.poll() is None:
            time.sleep(0.1)
        assert process.poll() is None, "it ended before it had started anything"
        process.terminate()
        assert process.wait(60) == PREEMPTED
    finally:
        process.kill()
    assert running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_writes_figures_table_and_picture(tmp_path, monkeypatch):
    """The sections that no other test runs with real processes. torch.compile hands everything through."""
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    workload = ["--model", "resnet8", "--size", "16", "--batch", "6", "--rounds", "2", "--steps", "2"]
    words = [*workload, "--runs", "1", "--only", "contest,overhead,saving"]
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    done = command("launch.bench", "step", *words, *folders, timeout=1500)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "step.json").read_text())
    ran = {one["name"] for one in found["contest"][0]["lines"] if not one["failed"]}
    assert ran == contest.TITLES.keys() - (set() if TIMM else {"timm", "timm-tuned"})
    assert found["saving"]["background"]["bytes"] == found["saving"]["foreground"]["bytes"]
    text = (tmp_path / "out" / "step.md").read_text()
    assert text in done.stdout
    assert text.count("\n## ") == 3
    assert Image.open(tmp_path / "out" / "step.png").size[0] > 1000
    assert list((tmp_path / "work").iterdir()) == [], "nothing is left behind"
