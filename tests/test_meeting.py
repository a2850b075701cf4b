"""Ranks that wait for one that never comes, as it died while it started, end when they are asked to."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch.distributed as dist
from conftest import ROOT

PROGRAM = """
from launch import preemptible
with preemptible():
    from pipeline.train.meeting import meet
    meet({timeout})
"""


@pytest.fixture
def store() -> dist.TCPStore:
    """What torchrun's agent keeps for its ranks."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def start(store: dist.TCPStore, rank: int, world: int, timeout: float = 600) -> subprocess.Popen:
    about = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    about |= {"TORCHELASTIC_USE_AGENT_STORE": True, "PYTHONPATH": ROOT}
    environment = os.environ | {name: str(value) for name, value in about.items()}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(timeout=timeout)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(there: Callable[[], bool], process: subprocess.Popen) -> None:
    while not there():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def left(process: subprocess.Popen) -> str:
    """What a rank said that ended with code 75."""
    _, told = process.communicate(timeout=60)
    assert process.returncode == 75, told
    return told.strip()


def test_without_the_first_rank(store):
    waiting = start(store, 1, 2)
    wait_for(lambda: store.check(["hello/1"]), waiting)
    waiting.send_signal(signal.SIGTERM)
    assert left(waiting) == "stopped before all ranks were there (SIGTERM); the same command goes on"


def test_without_another_rank_they_leave_together(store):
    """Rank 2 never comes. Rank 1 alone is asked, and the first one leaves with it."""
    first, second = (start(store, rank, 3) for rank in (0, 1))
    wait_for(lambda: store.check(["hello/1"]), second)
    mine = store.get("hello/1").decode()
    wait_for(lambda: store.check([f"answer/{mine}"]), second)
    attempt = store.get(f"answer/{mine}").decode()
    wait_for(lambda: store.check([f"seen/1/{attempt}"]), second)
    assert first.poll() is None
    second.send_signal(signal.SIGUSR1)
    assert left(second) == "stopped before all ranks were there (SIGUSR1); the same command goes on"
    assert left(first) == "stopped before all ranks were there (another rank); the same command goes on"


def test_nobody_waits_for_ever(store):
    """The first rank says who is missing; who waits for the first rank says that."""
    first, second = start(store, 0, 4, timeout=3), start(store, 1, 4, timeout=6)
    _, told = first.communicate(timeout=120)
    assert first.returncode == 70
    assert re.fullmatch(r"error: rank (1, )?2, 3 did not come within 3 s \(hang_timeout\)\n", told)
    _, told = second.communicate(timeout=120)
    assert second.returncode == 70
    assert told == "error: rank 0 did not come within 6 s (hang_timeout)\n"
