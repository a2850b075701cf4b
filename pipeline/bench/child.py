"""A part of a benchmark in a process of its own: ``python -m pipeline.bench.child FUNCTION WORDS``.

Calls ``module:function`` with the time on ``time.perf_counter`` when the process began and with WORDS, a JSON
object. Prints one line of JSON: what it returns, or {"failed": why}; nothing for None, which all ranks but
one return.
"""

import json
import os
import sys
import time
import traceback

from pipeline.bench.process import named, reason


def main() -> None:
    started = time.perf_counter()
    function, words = sys.argv[1], json.loads(sys.argv[2])
    # Before any library counts the cores: all contestants have equally many, and the same ones.
    os.sched_setaffinity(0, words.pop("cores"))
    try:
        told = named(function)(started, **words)
    except Exception as error:  # a rival may fail in any way, and the others still run
        traceback.print_exc()
        told = {"failed": reason(error)}
    if told is not None:
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
