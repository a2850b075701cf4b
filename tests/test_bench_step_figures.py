"""The step's benchmark: its figures, their table, and what is kept of them. No test judges a time."""

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from launch import bench
from pipeline.bench.kept import Kept
from pipeline.bench.step import contest, overhead, plot, run, saving, scaling, table
from pipeline.bench.step.plan import OURS, Plan, Workload
from pipeline.bench.step.players import Played
from pipeline.preempt import PREEMPTED, Preempted

SMALL = Workload("resnet8", 16, 6, rounds=2, steps=4)

# --- figures ----------------------------------------------------------------------------------------------

seconds = st.floats(1e-3, 10)


@given(st.lists(seconds, min_size=1, max_size=6), st.floats(0.1, 10), st.integers(1, 5))
def test_a_constant_ratio_is_found_whatever_the_machine_does(paces, factor, steps):
    def turn(pace):
        return {"steps": [pace] * steps, "cpu_seconds": 2 * pace * steps}

    rounds = [
        {OURS: turn(pace), "plain": turn(2 * pace), "bare": turn(pace), "torchvision": turn(factor * pace)}
        for pace in paces
    ]
    failed = {name: {"failed": f"{name} is not installed"} for name in ("timm", "timm-tuned")}
    found = {one["name"]: one for one in contest.lines(Played(rounds, {}, failed), SMALL)}
    assert list(found) == list(contest.TITLES)

    def constant(value):
        return pytest.approx(dict.fromkeys(("median", "low", "high"), value))

    assert found["torchvision"]["ours_faster"] == constant(factor)
    assert found["torchvision"]["plain_faster"] == constant(factor / 2)
    assert found[OURS]["ours_faster"] == constant(1)
    assert found[OURS]["rate"]["high"] == pytest.approx(SMALL.batch / min(paces))
    assert found["torchvision"]["cpu_seconds"]["high"] == pytest.approx(2 * factor * max(paces))
    assert found["timm"]["failed"] == "timm is not installed"


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


def test_efficiency_is_taken_within_a_round():
    # The machine is twice as slow in the second round.
    rates = {"alone": [100.0, 50.0], "ddp": [180.0, 95.0], "apart": [200.0, 100.0], "threads": [150.0, 75.0]}
    found = scaling.figures(rates, 2)
    assert found["alone"]["efficiency"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert found["ddp"]["efficiency"] == pytest.approx({"median": 0.925, "low": 0.9, "high": 0.95})
    assert found["ddp"]["rate"] == {"median": 137.5, "low": 95.0, "high": 180.0}


def test_no_ranks_are_compared_on_one_core_or_a_gpu(tmp_path):
    for threads, device in ((1, "cpu"), (2, "cuda")):
        plan = Plan((SMALL,), tmp_path, 1, threads, device, "fp32")
        assert (scaling.count(plan), list(scaling.run(plan, None))) == (0, [])


MACHINE = {"processor": "P", "cores": 2, "cores_of_machine": 2, "memory_gib": 8.0, "date": "today"} | {
    "load": 0.0,
    "versions": {"torch": "1"},
    "command": "c",
}


def sections() -> dict:
    """As they come of rounds that are made up."""
    steps = {OURS: 0.1, "plain": 0.11, "bare": 0.098, "torchvision": 0.13, "timm": 0.12}
    rounds = [{name: {"steps": [pace] * 2, "cpu_seconds": 4 * pace} for name, pace in steps.items()}] * 2
    lines = contest.lines(Played(rounds, {}, {"timm-tuned": {"failed": "no compiler"}}), SMALL)
    loop = {name: {"steps": [0.1] * 8} for name in overhead.GUESTS}
    loop[OURS] = {"first": 1, "steps": [0.101, 0.102, 0.101, 0.104] * 2}
    case = {"title": "python", "told": [{}] * 3, "total": {"median": 6.0, "low": 5.0, "high": 7.0}}
    saved = saving.figures({"first": 20, "steps": ([0.3] + [0.1] * 19) * 2}) | {"bytes": 2e8}
    rates = {"alone": [100.0], "ddp": [180.0], "apart": [190.0], "threads": [150.0]}
    about = asdict(SMALL)
    return {
        "contest": [about | {"lines": lines}],
        "overhead": about | overhead.figures([loop] * 3) | {"parts": {"gradient checked": 0.0002}},
        "scaling": about | {"ranks": 2} | scaling.figures(rates, 2),
        "start": about | {"cases": [case | {"parts": {"torch": 4.0, "first step": 2.0}}]},
        "saving": about | {"every": 20, "background": saved, "foreground": saved},
    }


def results(*names: str) -> dict:
    """As ``Kept`` has them."""
    found = {name: section for name, section in sections().items() if name in names or not names}
    measured = {name: {"date": "today", "load": 0.0} for name in found}
    about = {"threads": 2, "precision": "fp32", "device": "cpu"}
    return {"machine": MACHINE, "setting": about, "measured": measured} | found


def test_the_table_shows_every_section():
    text = table.markdown(results())
    assert "| ours, compiled | 100.0 [100.0, 100.0] | 200.0 | 60.0 [60.0, 60.0] | 1.00" in text
    assert "| torchvision, references/classification/train.py | 130.0 [130.0, 130.0] | 260.0 | 46.2" in text
    assert "| 1.30 [1.30, 1.30] | 1.18 [1.18, 1.18] |" in text
    assert "--torchcompile did not run: no compiler." in text
    assert "| our step with a row of metrics | +2.00% [+2.00%, +2.00%] |" in text
    assert "| a look at the gradients' flow, every 100 steps | 2.0 [2.0, 2.0] | 0.02% |" in text
    assert "| gradient checked | 0.200 | 0.20% |" in text
    assert "| 2 ranks on 2 cores, DDP | 180 [180, 180] | 0.90 [0.90, 0.90] |" in text
    assert "| **all** | **6.0** |" in text
    assert "| in the background | 200.0 [200.0, 200.0] | 0.0 [0.0, 0.0] |" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_what_is_asked_first_stands_above():
    lines = [line for line in table.markdown(results()).partition("\n## ")[0].splitlines() if "|" in line]
    assert [line.split("|")[2].strip() for line in lines[2:]] == [
        "× 1.30 [1.30, 1.30]",
        "× 1.20 [1.20, 1.20]",
        "+2.00% [+2.00%, +2.00%]",
        "0.90 [0.90, 0.90]",
        "6.0 [5.0, 7.0]",
    ]
    assert "most of it: torch 4.0, first step 2.0" in lines[-1]


def test_sections_that_were_not_run_are_not_shown(tmp_path):
    assert table.markdown(results("saving")).count("\n## ") == 1
    assert plot.draw(results("saving")) is None
    for part in ("contest", "start"):
        (tmp_path / "one.png").write_bytes(plot.draw(results(part)))
        assert Image.open(tmp_path / "one.png").size[0] > 1000


# --- what is kept -----------------------------------------------------------------------------------------


def test_sections_are_added_to_those_of_the_same_setting_and_machine(tmp_path):
    file, told = tmp_path / "step.json", {"threads": 2, "precision": "fp32", "device": "cpu"}
    Kept(file, MACHINE | {"date": "yesterday", "load": 0.7}, told).keep("saving", sections()["saving"])
    again = Kept(file, MACHINE, told)
    again.keep("start", sections()["start"])
    assert json.loads(file.read_text()) == again.results
    text = table.markdown(again.results)
    assert text.count("\n## ") == 2
    assert "Measured yesterday, load before the start 0.7." in text.partition("## Checkpoints")[2]
    assert "yesterday" not in text.partition("## Checkpoints")[0]
    for machine, setting in ((MACHINE, told | {"threads": 1}), (MACHINE | {"processor": "Q"}, told)):
        assert Kept(file, machine, setting).results["measured"] == {}
    file.write_text("cut off")
    assert Kept(file, MACHINE, told).results["measured"] == {}


@pytest.mark.parametrize(
    ("stops", "code"),
    [
        (Preempted("stopped (SIGTERM)"), PREEMPTED),
        (KeyboardInterrupt(), 130),
        (RuntimeError("ours: no"), None),
    ],
)
def test_what_is_measured_is_kept_when_the_rest_is_not(stops, code, tmp_path, monkeypatch, capsys):
    class Measured:
        count = staticmethod(lambda plan: 1)
        run = staticmethod(lambda plan, bar: iter([sections()["saving"]]))

    class Stopped(Measured):
        @staticmethod
        def run(plan, bar):
            yield sections()["contest"]
            raise stops

    monkeypatch.setattr(run, "SECTIONS", {"saving": Measured, "contest": Stopped, "start": Measured})
    with pytest.raises(RuntimeError if code is None else SystemExit) as ended:
        bench.main(["step", "--out", str(tmp_path), "--work", str(tmp_path / "work")])
    assert code is None or ended.value.code == code
    assert set(json.loads((tmp_path / "step.json").read_text())["measured"]) == {"saving", "contest"}
    told = capsys.readouterr()
    assert (tmp_path / "step.md").read_text() in told.out
    assert "## Checkpoints" in told.out
    assert "--only contest,start" in told.err


# --- the command ------------------------------------------------------------------------------------------


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
