"""One round of one contestant, in a process of its own: ``python -m pipeline.bench.child SETTING``.

Prints one line of JSON: what ``timing.measure`` returns, or {"failed": why}.
"""

import importlib
import json
import os
import sys
import time
import traceback

from pipeline.bench.timing import Setting, measure


def main() -> None:
    started = time.perf_counter()
    setting, stream = Setting(**json.loads(sys.argv[1])), sys.argv[2]
    # Before any library counts the cores: all contestants have equally many, and the same ones.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setting.threads])
    module, function = stream.split(":")
    try:
        made = getattr(importlib.import_module(module), function)(setting)
        told = measure(made, setting.seconds, setting.warm_up, started)
    except ModuleNotFoundError as missing:
        told = {"failed": f"{missing.name} is not installed"}
    except Exception as error:  # a rival may fail in any way, and the others still run
        traceback.print_exc()
        told = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
