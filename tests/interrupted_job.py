"""launch.train, but one rank asks itself to stop at a certain place: ``interrupted_job.py PLACE CONFIG ...``.

The signal is real, and so is everything else; only its moment is certain.
"""

import os
import signal
import sys
from collections.abc import Callable

from launch.train import main
from pipeline.train import loop
from pipeline.train.engine import Engine
from pipeline.train.job import Job
from pipeline.train.meter import Meter

PLACES = {
    "first pass": (Engine, "prime"),
    "first batch": (Meter, "next"),
    "evaluation": (Job, "evaluate"),
    "saving": (Engine, "state"),
    "last evaluation": (loop._Course, "_watch_validation", lambda course, done: done == course.plan.steps),
}


def interrupt(owner: object, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
    """Sends SIGUSR1 to this process when it is about to call ``owner.name``, with such words: once."""
    whole = getattr(owner, name)

    def interrupted(*words, **named):
        if when(*words):
            setattr(owner, name, whole)
            os.kill(os.getpid(), signal.SIGUSR1)
        return whole(*words, **named)

    setattr(owner, name, interrupted)


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        interrupt(*PLACES[sys.argv[1]])
    main(sys.argv[2:])
