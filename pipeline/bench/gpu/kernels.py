"""Where a step's time goes on the device: a profiler's trace, by class of kernel, and how long nothing ran.

Classes are told by kernels' names: cuDNN's, torch's own, and those that torch's compiler writes, which bear
the names of what they fuse.
"""

import re
from collections import Counter, defaultdict
from typing import Any

from pipeline.bench.gpu.traffic import CONVOLUTION, ELEMENTWISE, NORM, OPTIMIZER, POOL

COPIES, REST, IDLE = "copies and layouts", "the rest", "idle: nothing ran"
NAMES = (
    (OPTIMIZER, r"fused_?sgd|fused_?adam|multi_tensor|foreach|lpnorm|_to_copy(?!.*(norm|relu|conv))"),
    (NORM, r"batch_?norm|bn_(fw|bw)|native_batch"),
    (POOL, r"pool"),
    (COPIES, r"memcpy|memset|nchwtonhwc|nhwctonchw|direct_copy|copy_"),
    (ELEMENTWISE, r"triton_(?!tem|mm|conv)|relu|threshold|clamp|aten::add"),
    (
        CONVOLUTION,
        r"conv|fprop|dgrad|wgrad|gemm|gemv|cutlass|xmma|cudnn|cublas|nvjet|implicit|aten::(addmm|mm|linear)",
    ),
    (ELEMENTWISE, r"elementwise"),
)
"""Class and pattern; the first that is found counts."""
DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
"""A trace's categories of what runs on a GPU."""
Span = tuple[float, float]


def kind(name: str) -> str:
    """A kernel's class."""
    small = name.lower()
    return next((title for title, pattern in NAMES if re.search(pattern, small)), REST)


def table(trace: dict[str, Any], steps: int, gpu: bool) -> dict[str, Any]:
    """Milliseconds of a step by class, the longest ones first, and the ``top`` kernels by name.

    :param trace: as Chrome has it, of torch's profiler. :param gpu: else the processor's own operations
        count.
    :return: ``classes``; ``step_ms``, from the first one's start to the last one's end; ``top``, [name, ms].
    """
    events = [one for one in trace["traceEvents"] if one.get("ph") == "X"]
    if gpu:
        events = [one | {"own": one["dur"]} for one in events if one.get("cat") in DEVICE]
    else:
        events = own_times([one for one in events if one.get("cat") == "cpu_op"])
    if not events:
        raise RuntimeError("the profiler saw nothing run on the device")
    classes, names = Counter(), Counter()
    for one in events:
        classes[kind(one["name"])] += one["own"] / 1000 / steps
        names[one["name"]] += one["own"] / 1000 / steps
    spans = [(one["ts"], one["ts"] + one["dur"]) for one in events]
    whole = max(end for _, end in spans) - min(begin for begin, _ in spans)
    classes[IDLE] = (whole - covered(spans)) / 1000 / steps
    top = [[name[:120], milliseconds] for name, milliseconds in names.most_common(12)]
    return {"classes": dict(classes.most_common()), "step_ms": whole / 1000 / steps, "top": top}


def covered(spans: list[Span]) -> float:
    """How long at least one of them lasts."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def own_times(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with ``own``: how long each ran itself, and none that it called on its thread."""
    threads, found = defaultdict(list), []
    for one in events:
        threads[one.get("tid")].append(one | {"own": one["dur"]})
    for own in threads.values():
        within: list[dict[str, Any]] = []
        for one in sorted(own, key=lambda one: (one["ts"], -one["dur"])):
            while within and one["ts"] >= within[-1]["ts"] + within[-1]["dur"]:
                within.pop()
            if within:
                within[-1]["own"] -= one["dur"]
            within.append(one)
        found += own
    return found
