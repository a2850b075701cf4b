"""torchrun, as jobs need it: it ends with its ranks' code, and adds no traceback to what they say.

It hands SIGUSR1 on too, of which torchrun else dies, and gives the ranks ten minutes to save instead of 30
seconds. All else is torchrun's: python -m launch.torchrun --nproc-per-node 8 -m launch.train CONFIG
"""

import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from launch import note_fault
from pipeline.preempt import PREEMPTED

DEFAULTS = ("--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1", "--shutdown-timeout=600")
TOLD = (2, PREEMPTED)
"""Codes of ranks that have said in a line why they end."""


def main(argv: list[str] | None = None) -> None:
    try:
        run(parse_args([*DEFAULTS, *(sys.argv[1:] if argv is None else argv)]))
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        if first.exitcode not in TOLD:
            print(failed, file=sys.stderr, flush=True)
            note_fault(_code(first.exitcode))
        sys.exit(_code(first.exitcode))
    except SignalException as stopped:
        sys.exit(_code(-stopped.sigval))


def _code(code: int) -> int:
    """As a shell tells it: a signal is 128 and its number."""
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    main()
