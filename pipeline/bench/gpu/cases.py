"""A list of cases, measured one after the other in a process of its own; each is told as soon as it is known.

A case is a dict with a ``name``, ``least`` (seconds with which it may still be begun), and what its function
wants. What is found of it is a dict too: with ``failed`` or ``left``, why there are no figures. A case that
takes its process with it is noted as failed, and another process goes on with the rest.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.bench.gpu.plan import Plan
from pipeline.bench.process import cores, reason
from pipeline.bench.step.baton import READY
from pipeline.bench.step.players import Entrant, Player

LATE = "no time"
Case = dict[str, Any]
Found = dict[str, Any]
MARGIN = 20.0
"""Seconds beyond its time that a case may take until it is given up."""


def missing(found: Found | None) -> bool:
    """Whether it has yet to be measured."""
    return found is None or "failed" in found or "left" in found


def complete(cases: Sequence[Case], found: dict[str, Found]) -> bool:
    return not any(missing(found.get(case["name"])) for case in cases)


def worked(
    plan: Plan, function: str, cases: Sequence[Case], before: dict[str, Found], until: float, **words: Any
) -> Iterator[dict[str, Found]]:
    """What is known of all cases by name, each time that one more is.

    :param function: ``module:function`` that calls ``work_off``. :param before: what is known already.
    :param until: Unix seconds.
    """
    found = (
        {} if plan.again else {case["name"]: before[case["name"]] for case in cases if case["name"] in before}
    )
    left = [case for case in cases if missing(found.get(case["name"]))]
    words |= {"until": until, "device": plan.device}
    while left:
        entrant = Entrant(function, words | {"cases": left}, cores(plan.threads))
        with Player(entrant, max(0.0, until - time.time()) + MARGIN) as player:
            answer = player.answer()
            if "failed" in answer:  # before the first case: something is not installed
                yield found | {case["name"]: _late(answer, until) for case in left}
                return
            while left and "failed" not in (answer := player.answer()):
                found = found | {answer["case"]: answer["found"]}
                left = left[1:]
                yield found
        if left:
            silent = answer["failed"] == _mark(left[0])
            why = "its process ended without a word" if silent else answer["failed"]
            found = found | {left[0]["name"]: _late(answer | {"failed": why}, until)}
            left = left[1:]
    yield found


def work_off(cases: Sequence[Case], until: float, measure: Callable[[Case], Found]) -> dict[str, bool]:
    """Within the process: tells of each case in a line of JSON.

    :param measure: raises what it likes.
    :return: a line that nobody waits for.
    """
    print(json.dumps(READY), flush=True)
    for case in cases:
        print(_mark(case), file=sys.stderr, flush=True)
        if time.time() + case.get("least", 0.0) > until:
            found: Found = {"left": f"no time: needs {case['least']:.0f} s" if case.get("least") else LATE}
        else:
            begun = time.time()
            try:
                found = measure(case)
            except Exception as error:  # out of memory, no such kernel: the others may do
                traceback.print_exc()
                found = {"failed": reason(error)}
            found |= {"took_s": time.time() - begun}
        print(json.dumps({"case": case["name"], "found": found}), flush=True)
    return {"ended": True}


def _late(answer: Found, until: float) -> Found:
    """What was given up when the time was over did not fail."""
    return {"left": LATE} if time.time() > until else answer


def _mark(case: Case) -> str:
    """On stderr before each case: what is said after it is said of this one."""
    return f"case: {case['name']}"
