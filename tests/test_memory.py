"""Memory of a CPU's training steps: kept by the process, whatever the size of the blocks."""

from conftest import command

STEPS = """
import resource, sys
import torch
from pipeline.memory import keep_memory
from pipeline.train.ranks import join

def faults(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        blocks = [torch.ones(megabytes << 18) for _ in range(3)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def told():
    torch.set_num_threads(1)
    faults(1), faults(70)
    return faults(1), faults(70)

if sys.argv[1] == "join":
    with join("cpu"):
        print(*told())
else:
    print(*told())
"""
PAGES = 70 * 256
"""Of one of the large blocks."""


def faults(tmp_path, how: str) -> tuple[int, int]:
    (tmp_path / "steps.py").write_text(STEPS)
    done = command("steps", how, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    small, large = map(int, done.stdout.split())
    return small, large


def test_what_a_step_frees_the_next_one_has_again(tmp_path):
    # Left alone, glibc gives 70 MB back each time, and each page is cleared again when it is touched; where
    # the system has huge pages everywhere, 512 at once.
    assert faults(tmp_path, "alone")[1] >= 15 * PAGES / 512
    small, large = faults(tmp_path, "join")
    assert small + large < 15
