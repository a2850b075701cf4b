"""Traces of steps: those of the config, on demand, cut short, and where they cannot be had."""

import gzip
import json

import pytest
import torch

from pipeline.monitor import profiler
from pipeline.monitor.profiler import Profiler


@pytest.fixture
def step(monkeypatch):
    """Does one small training step; the profiler looks for its file at every step."""
    monkeypatch.setattr(profiler, "LOOK_EVERY", 0.0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def one():
        optimizer.zero_grad()
        net(torch.ones(2, 3, 8, 8)).sum().backward()
        optimizer.step()

    return one


def train(watcher: Profiler, step, start: int, stop: int) -> None:
    for done in range(start + 1, stop + 1):
        step()
        watcher.step(done)


def traced(file) -> tuple[list[str], set[str]]:
    """The steps that a trace names, in order, and the operators in it."""
    with gzip.open(file, "rt") as opened:
        events = json.load(opened)["traceEvents"]
    steps = sorted((e for e in events if e["name"].startswith("step ")), key=lambda event: event["ts"])
    return [event["name"] for event in steps], {event["name"] for event in events}


def names(folder) -> list[str]:
    return sorted(path.name for path in (folder / "profile").iterdir())


@pytest.mark.parametrize(("start", "first"), [(0, 3), (2, 3), (3, 4)])
def test_the_steps_of_the_config_wherever_the_run_goes_on(tmp_path, step, start, first):
    with Profiler(tmp_path, [3, 5], start, on=True) as watcher:
        train(watcher, step, start, 8)
    assert names(tmp_path) == [f"steps_{first}-5.json.gz", f"steps_{first}-5.txt"]
    steps, operators = traced(tmp_path / "profile" / f"steps_{first}-5.json.gz")
    assert steps == [f"step {number}" for number in range(first, 6)]
    assert {"aten::conv2d", "aten::convolution_backward"} <= operators
    table = (tmp_path / "profile" / f"steps_{first}-5.txt").read_text()
    assert "aten::addmm" in table
    assert "Self CPU" in table


def test_on_demand_and_cut_short(tmp_path, step):
    with Profiler(tmp_path, None, 0, on=True) as watcher:
        train(watcher, step, 0, 2)
        assert not (tmp_path / "profile").exists()
        (tmp_path / "PROFILE").touch()
        train(watcher, step, 2, 9)
        assert names(tmp_path) == ["steps_4-8.json.gz", "steps_4-8.txt"]
        assert not (tmp_path / "PROFILE").exists()
        (tmp_path / "PROFILE").touch()
        train(watcher, step, 9, 12)  # then the run is stopped: steps 11 and 12 are whole
    assert traced(tmp_path / "profile" / "steps_11-12.json.gz")[0][:2] == ["step 11", "step 12"]
    (tmp_path / "PROFILE").touch()
    with Profiler(tmp_path, None, 12, on=True):
        pass  # no whole step
    assert len(names(tmp_path)) == 4


def test_other_ranks_trace_nothing(tmp_path, step):
    (tmp_path / "PROFILE").touch()
    with Profiler(tmp_path, [1, 2], 0, on=False) as watcher:
        train(watcher, step, 0, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["PROFILE"]


def test_a_failure_is_a_line_and_no_more(tmp_path, step, capfd):
    (tmp_path / "profile").write_text("in the way")
    with Profiler(tmp_path, [2, 3], 0, on=True) as watcher:
        train(watcher, step, 0, 6)
    assert capfd.readouterr().err.count("no profiler from here on: ") == 1
    with torch.profiler.profile() as other:  # none is left running
        step()
    assert len(other.events()) > 0
