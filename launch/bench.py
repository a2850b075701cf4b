"""How fast our parts are beside what a user would pick instead, measured in turns within one run."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from launch import door, parser_of, preemptible
from pipeline.bench.gpu import words as gpu
from pipeline.config import UserError

EXAMPLE = """examples:
  python -m launch.bench loader
  python -m launch.bench loader --pictures /data/ILSVRC2012/train --gpu-rate 2500 3500
  python -m launch.bench loader --only files,dali,torchvision --rounds 3 --seconds 5
  python -m launch.bench step
  python -m launch.bench step --model resnet18 --size 224 --batch 32 --only contest,overhead
  python -m launch.bench probe
  python -m launch.bench gpu --pictures /data/ILSVRC2012/val --cifar data/cifar10
"""
LOADER = """Our loader against DALI's own reader, torchvision, timm and FFCV: the same JPEGs, on the CPU.
Writes loader.json, loader.md and loader.png."""
LOADER_EXAMPLE = """The pictures: a folder of <class>/*.jpg, else made of two Debian packages:
  apt-get install --no-install-recommends mate-backgrounds plasma-workspace-wallpapers

timm takes part after: uv sync --group bench

FFCV 1.0.2 takes part from an interpreter of its own (Debian 12, Python 3.11):
  apt-get install --no-install-recommends g++ pkg-config libopencv-dev libturbojpeg0-dev
  uv venv -p 3.11 ffcv
  uv pip install -p ffcv/bin/python setuptools wheel 'numpy<2' numba==0.59.1 torch==2.2.2 \\
      torchvision==0.17.2 'opencv-python<4.12'
  uv pip install -p ffcv/bin/python --no-build-isolation ffcv==1.0.2
  python -m launch.bench loader --ffcv-python ffcv/bin/python
"""
STEP = """Our training step against torchvision's and timm's scripts; what our loop costs beyond forward,
backward and optimizer; several ranks against one; the time to the first step; checkpoints.
Writes step.json, step.md and step.png; what is measured is kept when the rest is stopped."""
STEP_EXAMPLE = """Several workloads are given side by side; the first one is looked at closely:
  python -m launch.bench step --model resnet20 resnet50 --size 32 224 --batch 128 16 --rounds 12 3 --steps 5 2

timm takes part after: uv sync --group bench
"""
PROBE = """The frozen probe's 45 penalties against scikit-learn's LogisticRegression, on the same features and
cores; extraction of features against the loader alone and the forward pass alone.
Writes probe.json, probe.md and probe.png; what is measured is kept when the rest is stopped."""
PROBE_EXAMPLE = """The pictures are made of two Debian packages:
  apt-get install --no-install-recommends mate-backgrounds plasma-workspace-wallpapers

scikit-learn is fitted at 9 of the 45 penalties; at all of them with --lambdas 45.
"""


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.bench", __doc__, EXAMPLE)
    benches = parser.add_subparsers(dest="bench", required=True, metavar="BENCH")
    raw = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    told = {"help": "pictures from disk to batches", "description": LOADER, "epilog": LOADER_EXAMPLE}
    _loader_words(benches.add_parser("loader", **told, **raw))
    told = {"help": "a step of training", "description": STEP, "epilog": STEP_EXAMPLE}
    _step_words(benches.add_parser("step", **told, **raw))
    told = {"help": "features and the frozen probe", "description": PROBE, "epilog": PROBE_EXAMPLE}
    _probe_words(benches.add_parser("probe", **told, **raw))
    told = {"help": "all that needs a GPU, unattended", "description": gpu.ABOUT, "epilog": gpu.EXAMPLE}
    gpu.add_words(benches.add_parser("gpu", **told, **raw))
    words = parser.parse_args(argv)
    with door(), preemptible(terminal=False):
        command = ["python", "-m", "launch.bench", *(sys.argv[1:] if argv is None else argv)]
        {"loader": _loader, "step": _step, "probe": _probe, "gpu": _gpu}[words.bench](words, command)


def _loader_words(parser: argparse.ArgumentParser) -> None:
    cores = len(os.sched_getaffinity(0))
    add = parser.add_argument
    add("--pictures", type=Path, metavar="DIR", help="<class>/*.jpg or train/<class>/*.jpg; none = made")
    add("--count", type=int, default=2000, help="pictures made, if none are given (default 2000)")
    add("--work", type=Path, default=Path("data/bench"), help="for what is made (default data/bench)")
    add("--out", type=Path, default=Path("docs/bench-loader"), help="for results (default docs/bench-loader)")
    add("--only", metavar="A,B", help="these contestants alone, and ours over picture files")
    add(
        "--scaling", metavar="A,B", default="files,dali,torchvision", help="with fewer threads too; '' = none"
    )
    add("--rounds", type=int, default=5, help="of every contestant (default 5)")
    add("--seconds", type=float, default=10.0, help="measured in a round (default 10)")
    add("--warm-up", type=float, default=2.0, metavar="S", help="seconds before, not measured (default 2)")
    add("--batch", type=int, default=64, help="pictures (default 64)")
    add("--size", type=int, default=224, help="side of the square output (default 224)")
    add("--threads", type=int, default=cores, help=f"and cores, of each contestant (default {cores})")
    add("--gpu-rate", type=float, nargs="+", default=[3500.0], help="pictures/s a GPU takes (default 3500)")
    add("--ffcv-python", type=Path, metavar="PATH", help="an interpreter with FFCV, see below")


def _loader(words: argparse.Namespace, command: list[str]) -> None:
    # Matplotlib takes a second to import: --help need not wait.
    from pipeline.bench import loading, machine, photographs, plot, table
    from pipeline.bench.contestants import BY_NAME

    _positive(words, "count", "rounds", "seconds", "batch", "size", "threads", "gpu_rate")
    if words.warm_up < 0:
        raise UserError(f"--warm-up {words.warm_up}: must not be negative")
    plan = loading.Plan(
        pictures=words.pictures or words.work / "pictures",
        work=words.work,
        names=tuple(BY_NAME),
        scaling=loading.known("--scaling", words.scaling),
        rounds=words.rounds,
        seconds=words.seconds,
        warm_up=words.warm_up,
        batch=words.batch,
        size=words.size,
        threads=words.threads,
        gpu_rates=tuple(words.gpu_rate),
        ffcv_python=words.ffcv_python,
    )
    if words.only:
        plan = loading.only(plan, loading.known("--only", words.only))
    about = _machine(command)
    if words.ffcv_python:
        about["ffcv"] = machine.ffcv_versions(words.ffcv_python)
    if words.pictures is None:
        photographs.make(photographs.debian_photographs(), plan.pictures, words.count)
    results = {"machine": about, **loading.run(plan)}
    _write(words.out, "loader", results, table.markdown(results), plot.draw(results))


def _step_words(parser: argparse.ArgumentParser) -> None:
    cores = len(os.sched_getaffinity(0))
    add, several = parser.add_argument, {"nargs": "+", "type": int, "metavar": "N"}
    add("--model", nargs="+", default=["resnet20", "resnet50"], help="default resnet20 resnet50")
    add("--size", default=[32, 224], help="sides of the square pictures (default 32 224)", **several)
    add("--batch", default=[128, 8], help="pictures on each rank (default 128 8)", **several)
    add("--rounds", help="turns of everybody (default 6)", **several)
    add("--steps", help="measured in a turn (default 4, of pictures above 64 pixels 3)", **several)
    add("--runs", type=int, default=3, help="of whole commands, in start; of checkpoints (default 3)")
    add("--only", metavar="A,B", help="of contest, overhead, scaling, start, saving; adds to what there is")
    add("--threads", type=int, default=cores, help=f"and cores, of everybody (default {cores})")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="default fp32")
    add("--work", type=Path, default=Path("data/bench"), help="for what is made (default data/bench)")
    add("--out", type=Path, default=Path("docs/bench-step"), help="for results (default docs/bench-step)")


def _step(words: argparse.Namespace, command: list[str]) -> None:
    # Torch and Matplotlib take seconds to import: --help need not wait.
    from pipeline.bench.kept import Kept
    from pipeline.bench.sections import known
    from pipeline.bench.step import plot, run, table
    from pipeline.bench.step.plan import Plan, Workload
    from pipeline.models.zoo import find

    each = ("size", "batch", "rounds", "steps")
    words.rounds = words.rounds or [6] * len(words.model)
    words.steps = words.steps or [4 if side <= 64 else 3 for side in words.size]
    _positive(words, *each, "runs", "threads")
    for key in each:
        if len(getattr(words, key)) != len(words.model):
            raise UserError(f"--{key}: {len(getattr(words, key))} given for {len(words.model)} of --model")
    for name in words.model:
        find(name)
    columns = zip(words.model, *(getattr(words, key) for key in each), strict=True)
    workloads = tuple(Workload(*column) for column in columns)
    sections = known(words.only, run.SECTIONS) if words.only else tuple(run.SECTIONS)
    plan = Plan(workloads, words.work, words.runs, words.threads, words.device, words.precision)
    kept = Kept(words.out / "step.json", _machine(command), plan.told())
    try:
        run.run(plan, sections, kept)
    finally:  # whatever stopped it
        if kept.results["measured"]:
            _write(words.out, "step", kept.results, table.markdown(kept.results), plot.draw(kept.results))


def _probe_words(parser: argparse.ArgumentParser) -> None:
    cores = len(os.sched_getaffinity(0))
    add = parser.add_argument
    add("--train", type=int, default=6000, help="pictures fitted (default 6000)")
    add("--val", type=int, default=1500, help="pictures to choose the penalty on (default 1500)")
    add("--classes", type=int, default=102, help="default 102")
    add("--side", type=int, default=64, help="of these pictures, pixels (default 64)")
    add("--model", default="resnet50", help="whose features they are (default resnet50)")
    add("--lambdas", type=int, default=9, help="of the 45, for scikit-learn one by one (default 9)")
    add("--size", type=int, default=224, help="side of pictures in extraction (default 224)")
    add("--batch", type=int, default=32, help="pictures a forward pass in extraction (default 32)")
    add("--extracted", type=int, default=320, help="pictures in extraction (default 320)")
    add("--rounds", type=int, default=3, help="of extraction (default 3)")
    add("--only", metavar="A,B", help="of path, extraction; adds to what there is")
    add("--threads", type=int, default=cores, help=f"and cores, of everybody (default {cores})")
    add("--work", type=Path, default=Path("data/bench"), help="for what is made (default data/bench)")
    add("--out", type=Path, default=Path("docs/bench-probe"), help="for results (default docs/bench-probe)")


def _probe(words: argparse.Namespace, command: list[str]) -> None:
    # Torch and Matplotlib take seconds to import: --help need not wait.
    from pipeline.bench.kept import Kept
    from pipeline.bench.photographs import debian_photographs
    from pipeline.bench.probe import plot, run, table
    from pipeline.bench.probe.plan import GRID, Plan
    from pipeline.bench.sections import known
    from pipeline.models.zoo import find

    counts = ("train", "val", "classes", "side", "lambdas", "size", "batch", "extracted", "rounds", "threads")
    _positive(words, *counts)
    if words.lambdas > len(GRID):
        raise UserError(f"--lambdas {words.lambdas}: the grid has {len(GRID)}")
    if words.extracted < 3 * words.batch:
        raise UserError(f"--extracted {words.extracted}: give at least three batches, {3 * words.batch}")
    if words.train < words.classes:
        raise UserError(f"--train {words.train}: every one of {words.classes} classes needs a picture")
    find(words.model)
    sections = known(words.only, run.SECTIONS) if words.only else tuple(run.SECTIONS)
    plan = Plan(
        words.work, debian_photographs(), model=words.model, **{key: getattr(words, key) for key in counts}
    )
    kept = Kept(words.out / "probe.json", _machine(command), plan.told())
    try:
        run.run(plan, sections, kept)
    finally:  # whatever stopped it
        if kept.results["measured"]:
            _write(words.out, "probe", kept.results, table.markdown(kept.results), plot.draw(kept.results))


def _gpu(words: argparse.Namespace, command: list[str]) -> None:
    # Matplotlib takes a second to import: --help need not wait.
    from pipeline.bench.gpu import plot, run, table
    from pipeline.bench.kept import Kept
    from pipeline.bench.sections import known

    _positive(words, "seconds", "cifar_seconds", "together", "threads")
    sections = known(words.only, run.SECTIONS) if words.only else tuple(run.SECTIONS)
    gpu.least(sections, words.seconds)
    plan = gpu.plan_of(words)
    about = _machine(command) | {"gpu": gpu.gpu_of(plan)}
    kept, failed = Kept(words.out / "gpu.json", about, plan.told()), []
    try:
        failed = run.run(plan, sections, words.seconds, kept)
    finally:  # whatever stopped it
        if kept.results["measured"]:
            _write(words.out, "gpu", kept.results, table.markdown(kept.results), plot.draw(kept.results))
    if failed:
        sys.exit(1)


def _machine(command: list[str]) -> dict[str, Any]:
    """As it is before anything is measured; says so where others use it too."""
    from pipeline.bench import machine
    from pipeline.progress import say

    about = machine.describe(command)
    if about["load"] > 0.5:
        say(f"other programs ran in the last minute (load {about['load']}): rates will be lower and spread")
    return about


def _write(out: Path, name: str, results: dict[str, Any], text: str, picture: bytes | None) -> None:
    """All rounds as JSON, the table, which is printed too, and the picture, if there is one."""
    from pipeline.files import write_whole

    whole = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    files = {f"{name}.json": whole.encode(), f"{name}.md": text.encode(), f"{name}.png": picture}
    written = [file for file, content in files.items() if content is not None]
    for file in written:
        write_whole(out / file, files[file])
    print(text)
    print(f"{out}: {', '.join(written)}")


def _positive(words: argparse.Namespace, *keys: str) -> None:
    """:raises UserError: a number that no measurement can have."""
    cores = len(os.sched_getaffinity(0))
    for key in keys:
        value = getattr(words, key)
        least = min(value) if isinstance(value, list) else value
        if least <= 0:
            raise UserError(f"--{key.replace('_', '-')} {least}: must be greater than 0")
    if words.threads > cores:
        raise UserError(f"--threads {words.threads}: this process may use {cores} cores")


if __name__ == "__main__":
    main()
