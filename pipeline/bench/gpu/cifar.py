"""CIFAR-10's recipes by ``launch.train``, as far as the time goes, several at once if that is faster.

Each run has its folder and goes on in the next call. The first one begins alone; then others join it, and if
all together are no quicker than it was alone, they are stopped, saved, and wait for their turn.
"""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.bench.gpu.plan import Plan
from pipeline.bench.gpu.rows import every, trained
from pipeline.bench.process import ROOT, end, last_line, program, stop_if_asked
from pipeline.preempt import PREEMPTED

SAVING = 25.0
"""Seconds before the time is up in which runs are asked to save."""
LOOK = 1.0
"""Seconds between looks at them."""
WATCHED = "resnet20_fast"
"""Watched on the test pictures after each epoch, for the time to an accuracy; nothing is chosen by it."""
ACCURACY = 0.94


@dataclass
class Run:
    """One recipe's process."""

    name: str
    child: subprocess.Popen
    log: IO[str]
    begun: float


def run(plan: Plan, before: dict[str, Any], until: float) -> Iterator[dict[str, Any]]:
    """``recipes`` by name (see ``about``); ``alone``, ``together``, pictures/s, and which was ``chosen``."""
    if plan.cifar is None:
        yield {
            "left": "no index of CIFAR-10 given: --cifar INDEX (python -m launch.prepare cifar10 --out INDEX)"
        }
        return
    folder = plan.folder("cifar")
    pool = Pool(plan, folder, until - SAVING)
    try:
        for trial in pool.play(before):
            yield before | trial | {"recipes": recipes(plan, folder, pool.failed)}
    finally:
        pool.close()
    found = recipes(plan, folder, pool.failed)
    complete = all(one["state"] == "finished" for one in found.values())
    yield before | pool.trial | {"recipes": found, "complete": complete}


class Pool:
    """The processes that run. :ivar failed: why, by name."""

    def __init__(self, plan: Plan, folder: Path, until: float):
        self.plan, self.folder, self.until = plan, folder, until
        self.failed: dict[str, str] = {}
        self.trial: dict[str, Any] = {}
        self._runs: list[Run] = []

    def play(self, before: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Until all are finished or the time is up; what is known of the trial, every few seconds."""
        waiting = [name for name in self.plan.sizes.recipes if not finished(self.folder / name)]
        slots, since = 1, time.time()
        chosen = before.get("chosen")
        if chosen is not None:
            slots = self.plan.together if chosen == "together" else 1
        while (waiting or self._runs) and time.time() < self.until:
            stop_if_asked()
            self._reap()
            while waiting and len(self._runs) < slots:
                self._start(waiting.pop(0))
            if (
                chosen is None
                and self._rate(since)
                and time.time() - since > self.plan.sizes.alone + self._first(since)
            ):
                if "alone" not in self.trial:
                    self.trial["alone"], since, slots = self._rate(since), time.time(), self.plan.together
                elif len(self._runs) < 2 or all(self._rows(run, since) for run in self._runs):
                    self.trial["together"] = self._rate(since)
                    chosen = self.trial["chosen"] = self._chosen()
                    if chosen == "alone":
                        slots, waiting = 1, [*self._keep_first(), *waiting]
            time.sleep(LOOK)
            yield self.trial

    def close(self) -> None:
        """Asks all to save and end, and waits for it."""
        for run in self._runs:
            run.child.terminate()
        for run in self._runs:
            end(run.child)
            self._note(run)
        self._runs = []

    def _chosen(self) -> str:
        return "together" if self.trial["together"] > self.trial["alone"] else "alone"

    def _keep_first(self) -> list[str]:
        """Ends all but the first; their names."""
        first, *others = self._runs
        self._runs = others
        self.close()
        self._runs = [first]
        return [run.name for run in others]

    def _start(self, name: str) -> None:
        log = (self.folder / f"{name}.log").open("a")
        words = ["-m", "launch.train", str(ROOT / "configs" / "cifar10" / f"{name}.yaml")]
        words += overrides(self.plan, self.folder, name)
        self._runs.append(Run(name, program(words, log), log, time.time()))

    def _reap(self) -> None:
        for run in [run for run in self._runs if run.child.poll() is not None]:
            self._note(run)
            self._runs.remove(run)

    def _note(self, run: Run) -> None:
        run.log.close()
        if run.child.returncode not in (0, PREEMPTED):
            told = last_line((self.folder / f"{run.name}.log").read_text(errors="replace"))
            self.failed[run.name] = told or f"ended with code {run.child.returncode}"

    def _rows(self, run: Run, since: float) -> list[dict[str, Any]]:
        """Without the first one since then: in it the run may have started."""
        rows = trained(every(self.folder / run.name))
        return [row for row in rows if row["time"] > max(since, run.begun)][1:]

    def _rate(self, since: float) -> float:
        """Pictures/s of all runs together; 0 if there is none."""
        last = [self._rows(run, since)[-10:] for run in self._runs]
        return sum(sum(row["images_per_s"] for row in rows) / len(rows) for rows in last if rows)

    def _first(self, since: float) -> float:
        """Seconds from then to the last run's first row."""
        times = [rows[0]["time"] - since for run in self._runs if (rows := self._rows(run, since))]
        return max(times, default=0.0)


def overrides(plan: Plan, folder: Path, name: str) -> list[str]:
    """Where it runs and what is told; nothing of what it computes."""
    words = [f"name={name}", f"runs={folder}", f"data.index={plan.cifar}", f"train.device={plan.device}"]
    words += [f"data.loading.threads={max(1, plan.threads // plan.together)}", "monitor.wandb=false"]
    if name == WATCHED:
        words += ["data.val=test", "checkpoint.best=false"]
    return [*words, *plan.sizes.cifar_words]


def finished(folder: Path) -> bool:
    return any(row["split"] == "test" for row in every(folder))


def recipes(plan: Plan, folder: Path, failed: dict[str, str]) -> dict[str, Any]:
    return {name: about(folder / name, failed.get(name)) for name in plan.sizes.recipes}


def about(folder: Path, failed: str | None) -> dict[str, Any]:
    """``state`` (waiting, stopped, finished, failed), ``step``, ``epoch``, ``train_top1`` of the last rows,
    ``images_per_s``, ``error`` on the test pictures in percent at the end; where it was watched, the best
    ``watched`` top-1 and the seconds of training ``to_accuracy``."""
    rows = every(folder)
    steps = trained(rows)
    told: dict[str, Any] = {"state": "failed" if failed else "stopped" if steps else "waiting"}
    if failed:
        told["why"] = failed
    if steps:
        last = steps[-20:]
        told |= {key: steps[-1][key] for key in ("step", "epoch")}
        told["train_top1"] = sum(row["top1"] for row in last) / len(last)
        told["images_per_s"] = sorted(row["images_per_s"] for row in steps)[len(steps) // 2]
    for row in rows:
        if row["split"] == "test":
            told |= {"state": "finished", "error": 100 * (1 - row["top1"])}
    watched = [row for row in rows if row["split"] == "val"]
    if watched and steps:
        told["watched"] = max(row["top1"] for row in watched)
        told["to_accuracy"] = reached(steps, watched)
    return told


def reached(steps: list[dict[str, Any]], watched: list[dict[str, Any]]) -> float | None:
    """Seconds of training, without starts and evaluations, to ``ACCURACY``; none if it was not reached."""
    first = next((row["step"] for row in watched if row["top1"] >= ACCURACY), None)
    if first is None:
        return None
    seconds, done = 0.0, 0
    for row in steps:
        if row["step"] <= first:
            seconds += (row["samples"] - done) / row["images_per_s"]
        done = row["samples"]
    return seconds
