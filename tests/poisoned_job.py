"""launch.train, but one rank's loss is NaN in certain steps: ``poisoned_job.py STEPS CONFIG ...`` (e.g. 4,5).

STEPS ``4-`` means step 4 and all after it. Steps count from this process's first one.
"""

import os
import sys

from launch.train import main
from pipeline.train.engine import base

CALLS = 0


def poison(steps: str) -> None:
    """Multiplies the loss by NaN: what a picture full of NaN would do, without a loader that can make one."""
    whole = base.cross_entropy

    def poisoned(*words):
        global CALLS
        CALLS += 1
        first, endless, _ = steps.partition("-")
        hit = int(first) <= CALLS if endless else str(CALLS) in steps.split(",")
        return whole(*words) * (float("nan") if hit else 1.0)

    base.cross_entropy = poisoned


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        poison(sys.argv[1])
    main(sys.argv[2:])
