"""Small real data and real processes for all tests."""

import contextlib
import fcntl
import importlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

# Threads that wait give up their core: test machines are shared, and tests start several processes. Before
# torch is imported, for it is read once.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import numpy as np
import pytest

from pipeline.config import TrainConfig, parse
from pipeline.data.prepare import write_index
from pipeline.data.sources import Pixels, Source
from pipeline.preempt import SCHEDULERS, TERMINALS

ROOT = Path(__file__).parent.parent
# Examples are never judged by their time: test machines are shared.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=10, help="rounds of faults an engine (test_faults.py)")
    parser.addoption("--fault-seed", type=int, default=1, help="of the dice that choose the faults")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU, and torch sees none on this machine")


def drawn_pictures(n: int, classes: int, seed: int, side: int = 32) -> Pixels:
    """Pictures that can be told apart: each class has a colour and a direction of stripes, under noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    y, x = np.mgrid[:side, :side]
    angle = labels * np.pi / classes
    waves = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    stripes = np.sin(waves * 0.8 + rng.uniform(0, 6, (n, 1, 1)))
    tint = np.stack([np.cos(angle), np.sin(angle), np.cos(2 * angle)], axis=1)
    pixels = (
        128 + 60 * stripes[..., None] + 30 * tint[:, None, None, :] + rng.normal(0, 20, (n, side, side, 3))
    )
    return Pixels(pixels.clip(0, 255).astype(np.uint8), labels.astype(np.int64))


@pytest.fixture(scope="session")
def small_index(tmp_path_factory) -> Path:
    """A real index of raw 32x32 pictures: 250 to train on, 50 to validate, 70 to test; five classes."""
    out = tmp_path_factory.mktemp("small") / "index"
    splits = {"train": drawn_pictures(250, 5, 0), "val": drawn_pictures(50, 5, 1)}
    source = Source("drawn", list("abcde"), splits | {"test": drawn_pictures(70, 5, 2)})
    write_index(source, out)
    return out


@pytest.fixture(scope="session")
def other_index(tmp_path_factory) -> Path:
    """Another task: three classes, 60 pictures to train on, 45 to test."""
    out = tmp_path_factory.mktemp("other") / "index"
    splits = {"train": drawn_pictures(60, 3, 10), "test": drawn_pictures(45, 3, 11)}
    write_index(Source("other", list("xyz"), splits), out)
    return out


@pytest.fixture(scope="session")
def undisturbed(small_index, tmp_path_factory) -> Callable[[str, int], dict]:
    """The final state of ``jobs.long_job`` when nobody disturbed it, by engine and number of ranks.

    Each is made once for all of pytest's workers: the others wait for the one that makes it.
    """
    from jobs import ENGINES, finish, long_job  # which needs this file

    from pipeline.train import checkpoint  # which imports torch

    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    @cache
    def final(engine: str, ranks: int) -> dict:
        folder = shared / f"undisturbed-{engine}-{ranks}"
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "done").exists():
                finish(ranks, long_job(folder, small_index), *ENGINES[engine])
                (folder / "done").touch()
        return checkpoint.read(folder / "runs" / "quick")

    return final


def config_tree(index: Path, runs: Path, **changes) -> dict:
    """A quick training config as a tree; ``changes`` are dotted keys with two underscores for the dot."""
    tree = {
        "name": "quick",
        "runs": str(runs),
        "data": {
            "index": str(index),
            "val": None,
            "pictures": {"size": 32, "crop": "pad", "eval_resize": None},
            "loading": {"threads": 1},
        },
        "model": {"name": "resnet8"},
        "optim": {"lr": 0.1, "warmup": 0.5},
        "train": {"batch": 24, "epochs": 1.0, "device": "cpu"},
        "checkpoint": {"every": 0.3},
        "monitor": {"wandb": False, "samples": 0},
    }
    for key, value in changes.items():
        place = tree
        *sections, last = key.split("__")
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return tree


def quick_config(index: Path, runs: Path, **changes) -> TrainConfig:
    return parse(TrainConfig, config_tree(index, runs, **changes), "test")


def torchrun(
    ranks: int, *words: str, options: tuple[str, ...] = (), gpu: bool = False, **popen
) -> subprocess.Popen:
    """Starts a real ``torchrun`` of one node; its own rendezvous port, its own process group.

    :param options: of torchrun itself. :param gpu: its ranks may use GPUs.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command += options
    environment = os.environ | {"PYTHONPATH": _path(), "OMP_NUM_THREADS": "1"}
    environment |= {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([*command, *words], env=environment, **(pipes | popen))


def door(name: str, *words: str) -> subprocess.CompletedProcess:
    """What ``command`` does, within this process: a process of its own imports torch for seconds."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    numbers = (*SCHEDULERS, *TERMINALS)
    listening = {number: signal.getsignal(number) for number in numbers}
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            importlib.import_module(name).main(list(words))
        except SystemExit as left:
            code = left.code or 0
        finally:
            for number, handler in listening.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess([name, *words], code, out.getvalue(), err.getvalue())


def command(*words: str, **options) -> subprocess.CompletedProcess:
    """Runs ``python -m ...`` to its end."""
    environment = os.environ | {"PYTHONPATH": _path(), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-m", *words], env=environment, capture_output=True, text=True, **options
    )


def _path() -> str:
    """This repository before what is found already, for packages may lie elsewhere."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
