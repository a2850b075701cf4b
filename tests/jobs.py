"""Real jobs that tests disturb: start, watch from outside, stop, kill."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from conftest import config_tree, torchrun
from odd_pictures import encoded, photograph

from pipeline.data.prepare import write_index
from pipeline.data.sources import Files, Source
from pipeline.monitor.metrics import read_rows
from pipeline.train import checkpoint

SIGNALS = ("--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1")
"""As launch scripts give it to torchrun, which else dies of SIGUSR1."""


def write_config(folder: Path, index: Path, **changes) -> str:
    """A config file whose run is ``folder/runs/quick``; ``changes`` as ``config_tree`` takes them."""
    tree = config_tree(index, folder / "runs", **changes)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return str(folder / "config.yaml")


STEPS = 32
ENGINES = {"ddp": (), "deepspeed": ("engine=deepspeed", "deepspeed.stage=2")}


def long_job(folder: Path, index: Path) -> str:
    """32 steps of 24 pictures, evaluated after 11, 21 and 32, saved every 5 or 6, with a moving average.

    ``undisturbed`` (conftest.py) has its end.
    """
    changes = {"train__epochs": 3.05, "train__ema": 0.9, "data__val": "val", "checkpoint": {"every": 0.5}}
    return write_config(folder, index, **changes)


def start(ranks: int, config: str, *overrides: str, options: tuple[str, ...] = ()) -> subprocess.Popen:
    return torchrun(ranks, "-m", "launch.train", config, *overrides, options=options)


def finish(ranks: int, config: str, *overrides: str) -> str:
    """Runs the job to its end; what it said."""
    return ended(start(ranks, config, *overrides))


def ended(process: subprocess.Popen) -> str:
    """Waits for a good end; what the job said."""
    _, told = process.communicate(timeout=900)
    assert process.returncode == 0, told
    return told


def workers(torchrun_pid: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(torchrun_pid), "-f", "launch.train"], capture_output=True, text=True
    )
    return [int(pid) for pid in found.stdout.split()]


def steps_done(run: Path) -> int:
    path = run / "metrics.jsonl"
    rows = read_rows(path) if path.exists() else []
    return max((row["step"] for row in rows), default=0)


def wait_until(process: subprocess.Popen, reached: Callable[[], bool], seconds: float = 600) -> None:
    """Until a live job has got somewhere."""
    deadline = time.monotonic() + seconds
    while not reached() and process.poll() is None:
        assert time.monotonic() < deadline, "the job does not get on"
        time.sleep(0.005)


def same_bits(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same_bits, a, b))
    return a == b


def kill_all_at(step: int, ranks: int, config: str, run: Path) -> None:
    """Starts the job, and kills torchrun and all ranks (sessions of their own) once it has reached a step."""
    process = start(ranks, config)
    wait_until(process, lambda: steps_done(run) >= step)
    victims = workers(process.pid)
    assert len(victims) == ranks, "the job ended before it could be killed"
    for pid in (process.pid, *victims):
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=900)


def back_to_the_first(run: Path) -> int:
    """As if the job had died after its first checkpoint: later ones are gone; that one's step."""
    folder = run / "checkpoints"
    first, *others = checkpoint.numbered(folder)
    assert others, "there is something to do again"
    for other in others:
        other.unlink()
    (folder / "latest").write_text(f"{first.name}\n")
    (folder / "best").unlink(missing_ok=True)
    return checkpoint.step_of(first)


def photographs(folder: Path) -> Path:
    """``folder``, with a config for 15 steps on 120 photographs, three epochs; they are in its ``raw``."""
    rng, raw = np.random.default_rng(11), folder / "raw"
    raw.mkdir()
    for number in range(120):
        (raw / f"{number:03d}.jpg").write_bytes(encoded(photograph(rng, 50 + number % 20, 60)))
    paths, labels = [f"{number:03d}.jpg" for number in range(120)], np.arange(120) % 4
    splits = {"train": Files(raw, paths, labels), "val": Files(raw, paths[:30], labels[:30])}
    write_index(Source("photographs", list("abcd"), splits), folder / "index")
    tree = config_tree(folder / "index", folder / "runs", train__epochs=3.0, data__val="val")
    tree["data"]["pictures"] = {"size": 32, "eval_resize": 40}
    tree["data"]["loading"]["fault_limit"] = 0.02
    tree["monitor"] |= {"eval_every": 3}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return folder


def damage(job: Path, *numbers: int) -> None:
    """Pictures of ``photographs`` become zeros, as many: a file of another length is not even decoded."""
    for number in numbers:
        file = job / "raw" / f"{number:03d}.jpg"
        file.write_bytes(bytes(file.stat().st_size))
