"""The words of ``launch.bench gpu``, and what they ask for."""

import argparse
import os
import subprocess
from pathlib import Path

from pipeline.bench.gpu.plan import LEAST, SECONDS, TINY, Plan, Sizes
from pipeline.config import UserError
from pipeline.data.index import is_index

ABOUT = """What a GPU gives: the tests that need one; ResNet-50's step, loader and both together against
torchvision's step; what bounds it; other networks; CIFAR-10's recipes; the probe. Under 15 minutes,
unattended; what there was no time for is told, and the same command again adds it. Writes gpu.json, gpu.md
and gpu.png."""
EXAMPLE = """examples:
  python -m launch.bench gpu --pictures /data/ILSVRC2012/val --cifar data/cifar10
  python -m launch.bench gpu --only tests,throughput --seconds 560
  python -m launch.bench gpu --only roofline,models,cifar,probe --seconds 300 --cifar data/cifar10

The pictures: a folder of <class>/*.jpg, else made of two Debian packages:
  apt-get install --no-install-recommends mate-backgrounds plasma-workspace-wallpapers
"""


def add_words(parser: argparse.ArgumentParser) -> None:
    cores, add = len(os.sched_getaffinity(0)), parser.add_argument
    add("--only", metavar="A,B", help=f"of {', '.join(SECONDS)}; adds to what there is")
    add("--seconds", type=float, default=sum(SECONDS.values()), help="for all of it (default %(default)s)")
    add("--cifar-seconds", type=float, default=SECONDS["cifar"], help="for CIFAR-10 (default %(default)s)")
    add("--pictures", type=Path, metavar="DIR", help="<class>/*.jpg or train/<class>/*.jpg; none = made")
    add("--cifar", type=Path, metavar="INDEX", help="of launch.prepare cifar10; none = without it")
    add("--together", type=int, default=4, help="CIFAR-10 recipes at once, if that is faster (default 4)")
    add("--again", action="store_true", help="measure what is there already once more")
    add("--threads", type=int, default=cores, help=f"and cores, of everybody (default {cores})")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="default cuda")
    add("--work", type=Path, default=Path("data/bench"), help="for what is made (default data/bench)")
    add("--out", type=Path, default=Path("docs/bench-gpu"), help="for results (default docs/bench-gpu)")
    add("--tiny", action="store_true", help=argparse.SUPPRESS)  # with which tests go through all of it


def plan_of(words: argparse.Namespace) -> Plan:
    """:raises UserError: there is no GPU, or no index."""
    if words.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("--device cuda: torch sees no GPU on this machine")
    if words.cifar is not None and not is_index(words.cifar):
        raise UserError(
            f"--cifar {words.cifar}: no index there; python -m launch.prepare cifar10 --out {words.cifar}"
        )
    if words.pictures is not None and not words.pictures.is_dir():
        raise UserError(f"--pictures {words.pictures}: no such folder")
    return Plan(
        device=words.device,
        work=words.work.absolute(),
        threads=words.threads,
        sizes=TINY if words.tiny else Sizes(),
        pictures=words.pictures and words.pictures.absolute(),
        cifar=words.cifar and words.cifar.absolute(),
        together=words.together,
        limits=SECONDS | {"cifar": words.cifar_seconds},
        again=words.again,
    )


def least(names: tuple[str, ...], seconds: float) -> None:
    """:raises UserError: there is no time for any section."""
    if seconds < min(LEAST[name] for name in names):
        raise UserError(f"--seconds {seconds:g}: no section is done in less than {min(LEAST.values())}")


def gpu_of(plan: Plan) -> str | None:
    """The GPU's name, memory and driver; none on a CPU, or where nobody tells."""
    if not plan.gpu:
        return None
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip().splitlines()[0] if told.stdout.strip() else None
