"""A rank that stops moving ends the job, which says where it stood; torchrun brings it back."""

import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import ClassVar

import pytest
import torch
from conftest import torchrun
from jobs import STEPS, long_job, same_bits, start, steps_done, wait_until, workers

from pipeline.config import Loading, Pictures
from pipeline.data.batches import Batch
from pipeline.data.index import open_index
from pipeline.data.loader import Loader
from pipeline.models import build
from pipeline.monitor.metrics import read_rows
from pipeline.train import checkpoint
from pipeline.train.evaluate import evaluate
from pipeline.train.ranks import Ranks, join
from pipeline.train.watchdog import Beat, blame

RESTART = ("--max-restarts", "1", "--shutdown-timeout", "3")
"""torchrun gives a stopped process 30 s to end by itself unless told otherwise."""


TRANSFER = """
import os, signal, sys, time
from pathlib import Path
from pipeline.config import Loading, Model, Pictures
from pipeline.data.index import open_index
from pipeline.data.loader import Loader
from pipeline.models import build
from pipeline.train.ranks import join
from pipeline.transfer.backbone import Backbone, Frozen
from pipeline.transfer.features import features

index, folder = sys.argv[1:]
passes, real = 0, Frozen.at

def at(*words):
    global passes
    passes += 1
    if passes == 3 and not ranks.first:
        time.sleep(6)  # its place is told every other second
        os.kill(os.getpid(), signal.SIGSTOP)
    return real(*words)

Frozen.at = at
with join("cpu", hang_timeout=30) as ranks:
    ranks.at("waiting")
    if ranks.first:
        ranks.at("fitting", long=True)
        time.sleep(65)
    ranks.barrier()
    print("fitted", flush=True)
    split, pictures = open_index(index).split("train"), Pictures(size=32, crop="pad", eval_resize=None)
    loader = Loader(split, pictures, Loading(threads=1), ranks.device, True)
    backbone = Backbone(Path("random"), "digest", Model(name="resnet8"), build("resnet8", 5).state_dict(), 5)
    features(backbone, loader, 8, Path(folder), ranks)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_rank_that_stands_still_ends_the_job_and_torchrun_brings_it_back(
    small_index, tmp_path, undisturbed
):
    """What comes back ends in the bits of a run that nobody stopped."""
    config, run = long_job(tmp_path, small_index), tmp_path / "runs" / "quick"
    # Long enough for a first pass on a busy machine: a slow rank is no stuck one.
    process = start(2, config, "train.hang_timeout=30", options=RESTART)
    wait_until(process, lambda: steps_done(run) >= 9)
    first, victim = workers(process.pid)
    os.kill(first, signal.SIGSTOP)
    time.sleep(5)  # the other one waits for it; its place is told every other second
    os.kill(victim, signal.SIGSTOP)
    os.kill(first, signal.SIGCONT)
    stopped = time.monotonic()
    _, told = process.communicate(timeout=900)
    assert process.returncode == 0, told
    (message,) = re.findall(r"error: no progress for 30 s .*", told)
    assert f"rank 1 ({os.uname().nodename}, process {victim}), last seen in step " in message
    assert "its process stands still" in message
    assert "rank 0" not in message
    assert time.monotonic() - stopped < 400, "not what gloo or torchrun would have waited"
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["split"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    ended = checkpoint.read(run)
    assert ended["step"] == STEPS
    assert same_bits(ended["model"], undisturbed("ddp", 2)["model"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_transfer_waits_for_a_long_fit_and_not_for_a_rank_that_stands_still(small_index, tmp_path):
    (tmp_path / "transfer.py").write_text(TRANSFER)
    words = (str(tmp_path / "transfer.py"), str(small_index), str(tmp_path / "features"))
    process = torchrun(2, *words, options=("--shutdown-timeout", "3"))
    said, told = process.communicate(timeout=600)
    assert process.returncode == 1, told
    assert said.count("fitted") == 2, "both waited 65 s and not 30"
    (message,) = re.findall(r"error: no progress for 30 s .*", told)
    assert re.search(
        r"stuck: rank 1 \(.*\), last seen in step 2, features; its process stands still$", message
    )


class Watched(Ranks):
    """Notes in which phase this rank waits for others."""

    waits: ClassVar[list[str]] = []

    def any(self, flag: bool) -> bool:
        self.waits.append(self.watchdog.phase)
        return super().any(flag)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        self.waits.append(self.watchdog.phase)
        return super().sum(values)


class Place:
    """In a watchdog's place: no more than where the rank is."""

    phase = "start"

    def at(self, phase: str, step: int | None, long: bool) -> None:
        self.phase = phase


def test_who_hangs_in_an_evaluation_is_told_from_who_waits(small_index):
    """One rank reads or computes, the other waits in an exchange: the phases that either shows then."""
    moves, split = [], open_index(small_index).split("test")

    class Noted(Loader):
        def evaluation(self, *words) -> Iterator[Batch]:
            for batch in super().evaluation(*words):
                moves.append(ranks.watchdog.phase)
                yield batch

    pictures = Pictures(size=32, crop="pad", eval_resize=None)
    model = build("resnet8", 5)
    model.register_forward_hook(lambda *_: moves.append(ranks.watchdog.phase))
    with join("cpu") as joined:
        ranks = Watched(joined.rank, joined.world, joined.local_rank, joined.device, Place())
        loader = Noted(split, pictures, Loading(threads=1), ranks.device, True)
        evaluate(model, loader, 24, ranks, torch.float32, "validate")
    assert (len(moves), len(Watched.waits)) == (6, 3 + 5)
    for moving, waiting in product(moves, Watched.waits):
        before = {rank: Beat("n1", 100 + rank, step=7, beats=3) for rank in range(2)}
        now = {0: replace(before[0], phase=waiting, beats=5), 1: replace(before[1], phase=moving, beats=5)}
        stuck, told = blame(before, now, 2, 60)
        assert stuck == [1]
        assert told.endswith("last seen in step 7, validate; its process lives")
    assert ranks.watchdog.phase == "validate", "what comes next is no exchange"


def test_whom_to_blame():
    def beats(**phases: tuple[int, str, int]) -> dict[int, Beat]:
        return {
            int(rank[1:]): Beat("n1", 100 + int(rank[1:]), step=step, phase=phase, beats=count)
            for rank, (step, phase, count) in phases.items()
        }

    before = beats(r0=(7, "backward", 3), r1=(7, "pictures", 3), r2=(7, "backward", 3))
    lives = beats(r0=(7, "backward", 5), r1=(7, "pictures", 5), r2=(7, "backward", 5))
    stuck, told = blame(before, lives, 3, 60)
    assert stuck == [1]
    assert told == (
        "no progress for 60 s (hang_timeout); stuck: rank 1 (n1, process 101), last seen in step 7, "
        "pictures; its process lives"
    )
    dead = beats(r0=(7, "backward", 5), r1=(7, "pictures", 5), r2=(7, "backward", 3))
    stuck, told = blame(before, dead, 3, 60)
    assert stuck == [2]
    assert told.endswith("rank 2 (n1, process 102), last seen in step 7, backward; its process stands still")
    behind = beats(r0=(7, "agreeing", 5), r1=(6, "backward", 5), r2=(7, "agreeing", 5))
    assert blame(before, behind, 3, 60)[0] == [1]
    everyone = beats(r0=(7, "backward", 5), r1=(7, "backward", 5), r2=(7, "communication", 5))
    assert blame(before, everyone, 3, 60)[0] == [0, 1, 2]
    before[0].long = lives[0].long = dead[0].long = True
    assert blame(before, lives, 3, 60)[0] == [], "the first rank takes its time"
    assert blame(before, dead, 3, 60)[0] == [2]
    stuck, told = blame(before, lives, 4, 60)
    assert stuck == [3]
    assert told.endswith("stuck: rank 3; nothing was heard of it since it joined")
