"""Who takes part. Nothing is imported for it: each round runs in a process of its own, maybe elsewhere."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Contestant:
    """One line of the table.

    :ivar stream: ``module:function`` that makes a ``timing.Stream`` of a ``timing.Setting``.
    :ivar prepare: of ours, the words for ``launch.prepare``; of FFCV, the mode it writes.
    """

    name: str
    title: str
    kind: Literal["ours", "rival", "ffcv", "limit"]
    stream: str
    prepare: tuple[str, ...] = ()
    one_thread: bool = False


OURS, RIVALS, LIMITS = "pipeline.bench.ours:stream", "pipeline.bench.rivals", "pipeline.bench.limits"
FFCV = "pipeline.bench.ffcv_rival:stream"
SMALL = ("--pack", "--max-side", "350", "--quality", "90")
"""As FFCV writes its pictures: long side at most 350 pixels, JPEG of quality 90."""

VARIANTS = (
    Contestant("files", "ours, picture files", "ours", OURS),
    Contestant("packed", "ours, packed", "ours", OURS, ("--pack",)),
    Contestant("packed350", "ours, packed, side ≤ 350", "ours", OURS, SMALL),
    Contestant("decoded350", "ours, packed decoded, side ≤ 350", "ours", OURS, (*SMALL[:3], "--decoded")),
)
CONTESTANTS = (
    *VARIANTS,
    Contestant("dali", "DALI's own reader and crop", "rival", f"{RIVALS}:dali"),
    Contestant("torchvision", "torchvision, ImageFolder with Pillow", "rival", f"{RIVALS}:torchvision"),
    Contestant(
        "torchvision-io", "torchvision, its own JPEG decoder, tuned", "rival", f"{RIVALS}:torchvision_io"
    ),
    Contestant("timm", "timm's create_loader", "rival", f"{RIVALS}:timm"),
    Contestant("ffcv-jpeg", "FFCV, JPEG, side ≤ 350", "ffcv", FFCV, ("jpg",)),
    Contestant("ffcv-raw", "FFCV, raw, side ≤ 350", "ffcv", FFCV, ("raw",)),
    Contestant("decode-dali", "limit: DALI only decodes, from memory", "limit", f"{LIMITS}:dali"),
    Contestant(
        "decode-pillow",
        "limit: Pillow only decodes, from memory",
        "limit",
        f"{LIMITS}:pillow",
        one_thread=True,
    ),
)
BY_NAME = {one.name: one for one in CONTESTANTS}
