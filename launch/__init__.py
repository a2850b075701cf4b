"""The doors: one command a file. Each parses its words, calls the pipeline and sets the exit code.

Exit codes: 0 done, 2 a mistake of the user's (one line on stderr), 75 preempted and saved, else a fault.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.config import UserError


@contextmanager
def door() -> Iterator[None]:
    """Turns a UserError into one line and exit code 2. Of several ranks only the first one speaks."""
    try:
        yield
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr, flush=True)
        # 2 for every rank; torchrun itself then ends with 1 and names this code in its summary.
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
