"""Kill a real job at random moments, damage what it saved; what the same command finishes is bit-identical.

By hand, for as long as one likes, with other dice:

    uv run pytest -m slow tests/test_faults.py -k rounds --rounds 200 --fault-seed 7 -s -n 0
"""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import ROOT, door
from jobs import ENGINES, STEPS, ended, long_job, same_bits, start, steps_done, wait_until, workers

from pipeline.monitor.metrics import read_rows
from pipeline.train import checkpoint


@dataclass
class Campaign:
    """Rounds of faults against one job after the other; each job is finished and compared in the end."""

    engine: str
    ranks: int
    index: Path
    folder: Path
    dice: random.Random
    expected: dict
    told: list[str] = field(default_factory=list)
    """What was done in each round, to be read when something is wrong."""
    jobs: int = 0

    def rounds(self, count: int) -> None:
        self._new_job()
        for number in range(count):
            began = time.monotonic()
            alive = self._round()
            print(f"round {number + 1}: {self.told[-1]}, {time.monotonic() - began:.1f} s", flush=True)
            if not alive:
                self._compare()
                self._new_job()
        self._compare()

    def _new_job(self) -> None:
        self.jobs += 1
        folder = self.folder / f"job{self.jobs}"
        folder.mkdir()
        self.config, self.run = long_job(folder, self.index), folder / "runs" / "quick"

    def _start(self):
        return start(self.ranks, self.config, *ENGINES[self.engine])

    def _round(self) -> bool:
        """Starts the job and kills it somewhere; false if it was faster and has finished."""
        dice, began = self.dice, time.time()
        process = self._start()
        if dice.random() < 0.25:
            moment = dice.uniform(0, 8)
            self.told.append(f"after {moment:.2f} s")
            wait_until(process, lambda: workers(process.pid))
            time.sleep(moment)
        else:
            count = dice.randint(1, 9)
            wait_until(process, lambda: len(done := self._steps_since(began)) >= count or STEPS in done)
            at_end = STEPS in self._steps_since(began)  # evaluation, the last save, samples, goodbye
            time.sleep(dice.uniform(0, 3 if at_end else 0.1))
            self.told.append(f"at step {max(self._steps_since(began), default=0)}")
        if process.poll() is None:
            self._kill(process)
        process.communicate(timeout=900)
        if process.returncode == 0:
            return False
        if dice.random() < 0.4:
            self._damage()
        return True

    def _steps_since(self, began: float) -> list[int]:
        """What this start has done; rows of steps that an earlier one did and lost may still be there."""
        path = self.run / "metrics.jsonl"
        rows = read_rows(path) if path.exists() else []
        return [row["step"] for row in rows if row["split"] == "train" and row["time"] >= began]

    def _kill(self, process) -> None:
        """One rank, and torchrun ends the others; or torchrun and all ranks (sessions of their own)."""
        victims = workers(process.pid)
        if self.dice.random() < 0.5 and victims:
            victims = [self.dice.choice(victims)]
            self.told[-1] += f", one of {self.ranks} ranks"
        else:
            os.kill(process.pid, signal.SIGKILL)
            self.told[-1] += ", all"
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                self.told[-1] += " (one had just ended)"

    def _damage(self) -> None:
        """Cuts the newest checkpoint off, or flips a bit of it, where another one is left to go back to."""
        newest = checkpoint.latest(self.run)
        whole = newest and [path for path in checkpoint.numbered(newest.parent) if path < newest]
        if not whole or any(path.stat().st_size == 0 for path in whole):
            return
        content = bytearray(newest.read_bytes())
        place = self.dice.randrange(len(content))
        if self.dice.random() < 0.5:
            del content[place:]
            self.told[-1] += f", {newest.name} cut off at {place}"
        else:
            content[place] ^= 1 << self.dice.randrange(8)
            self.told[-1] += f", a bit of {newest.name} flipped at {place}"
        newest.write_bytes(content)

    def _compare(self) -> None:
        story = "; ".join(self.told)
        ended(self._start())
        state = checkpoint.read(self.run)
        assert state["step"] == STEPS, story
        for key in ("model", "optimizer", "ema"):
            assert same_bits(state[key], self.expected[key]), f"{key}: {story}"
        rows = read_rows(self.run / "metrics.jsonl")
        for split, steps in (("train", list(range(1, STEPS + 1))), ("val", [11, 21, 32])):
            assert [row["step"] for row in rows if row["split"] == split] == steps, story


def campaign(engine, ranks, seed, index, folder, undisturbed) -> Campaign:
    return Campaign(engine, ranks, index, folder, random.Random(seed), undisturbed(engine, ranks))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each engine has four minutes a round; one takes a quarter of a minute where nothing else runs."""
    if "engine" in metafunc.fixturenames:
        limit = pytest.mark.timeout(240 * metafunc.config.getoption("--rounds"))
        metafunc.parametrize("engine", [pytest.param(name, marks=limit) for name in ENGINES])


@pytest.mark.slow
def test_rounds_of_faults(engine, small_index, tmp_path, undisturbed, request):
    seed = request.config.getoption("--fault-seed")
    disturbed = campaign(engine, 2, seed, small_index, tmp_path, undisturbed)
    disturbed.rounds(request.config.getoption("--rounds"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_rounds_over_three_ranks(small_index, tmp_path, undisturbed):
    """Over three ranks sums round by their order, which DDP's gradient buckets decide."""
    campaign("ddp", 3, 5, small_index, tmp_path, undisturbed).rounds(1)


def test_a_second_job_is_kept_out_of_a_live_runs_folder(small_index, tmp_path):
    config, run = long_job(tmp_path, small_index), tmp_path / "runs" / "quick"
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.train", config],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(process, lambda: steps_done(run) >= 1)
    process.send_signal(signal.SIGSTOP)  # it lives, and does not finish before the second one looks
    second = door("launch.train", config)
    process.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert "another job works in this folder" in second.stderr
    ended(process)
