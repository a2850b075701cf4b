"""Which device a rank computes on, and whose fault it is where there is none."""

import pytest
import torch

from pipeline.config import UserError
from pipeline.train.ranks import gpus_given, join

ON_NODE = {"SLURMD_NODENAME": "n7", "SLURM_GPUS_ON_NODE": "8"}


@pytest.mark.parametrize(
    ("about", "gpus"),
    [
        ({}, 0),
        (ON_NODE, 8),
        ({"SLURMD_NODENAME": "n7"}, 0),
        ({"SLURM_GPUS_ON_NODE": "8"}, 0),
        (ON_NODE | {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, 8),
        (ON_NODE | {"CUDA_VISIBLE_DEVICES": "2,GPU-fef8089b"}, 2),
        (ON_NODE | {"CUDA_VISIBLE_DEVICES": "MIG-7d0a8c3e,MIG-c6d4f1ef"}, 1),
        (ON_NODE | {"CUDA_VISIBLE_DEVICES": "-1"}, 0),
        (ON_NODE | {"CUDA_VISIBLE_DEVICES": ""}, 0),
    ],
)
def test_gpus_are_slurms_of_the_step_if_the_user_hides_none(about, gpus):
    assert gpus_given(about) == gpus


@pytest.fixture
def blind_node(monkeypatch):
    """SLURM gives more GPUs than torch sees, whatever this machine has."""
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4096")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_gpus_that_torch_does_not_see_are_the_nodes_fault(device, blind_node):
    """Not the user's, whose job would not be queued again; and nothing to train on CPUs for."""
    told = r"n7: SLURM has given 4096 GPUs, torch sees \d+: the driver is older than CUDA \d"
    with pytest.raises(RuntimeError, match=told), join(device):
        pass


def test_a_torch_without_cuda_is_the_users_mistake(blind_node, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match=r"this torch \(.*\) is built without CUDA; write"), join("auto"):
        pass


def test_on_such_a_node_cpus_may_be_asked_for(blind_node):
    with join("cpu") as ranks:
        assert ranks.device.type == "cpu"
