"""One SLURM cluster for all tests of this folder, brought up by the first that asks."""

import os
from collections.abc import Iterator

import pytest

from .slurm_cluster import SlurmCluster, missing


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    """Skips where there can be no cluster, in words; fails there if REQUIRE_SLURM=1 is set."""
    reason = missing()
    if reason and os.environ.get("REQUIRE_SLURM") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with SlurmCluster() as up:
        yield up
