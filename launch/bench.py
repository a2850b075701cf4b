"""How fast our parts are beside what a user would pick instead, measured in turns within one run."""

import argparse
import json
import os
import sys
from pathlib import Path

from launch import door, parser_of
from pipeline.config import UserError

EXAMPLE = """examples:
  python -m launch.bench loader
  python -m launch.bench loader --pictures /data/ILSVRC2012/train --gpu-rate 2500 3500
  python -m launch.bench loader --only files,dali,torchvision --rounds 3 --seconds 5
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


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.bench", __doc__, EXAMPLE)
    benches = parser.add_subparsers(dest="bench", required=True, metavar="BENCH")
    loader = benches.add_parser(
        "loader",
        help="pictures from disk to batches",
        description=LOADER,
        epilog=LOADER_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _loader_words(loader)
    words = parser.parse_args(argv)
    with door():
        command = ["python", "-m", "launch.bench", *(sys.argv[1:] if argv is None else argv)]
        _loader(words, command)


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
    from pipeline.files import write_whole
    from pipeline.progress import say

    _positive(words)
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
    about = machine.describe(command)
    if words.ffcv_python:
        about["ffcv"] = machine.ffcv_versions(words.ffcv_python)
    if about["load"] > 0.5:
        say(f"other programs ran in the last minute (load {about['load']}): rates will be lower and spread")
    if words.pictures is None:
        photographs.make(photographs.debian_photographs(), plan.pictures, words.count)
    results = {"machine": about, **loading.run(plan)}
    text = table.markdown(results)
    write_whole(
        words.out / "loader.json", (json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode()
    )
    write_whole(words.out / "loader.md", text.encode())
    write_whole(words.out / "loader.png", plot.draw(results))
    print(text)
    print(f"{words.out}: loader.json, loader.md, loader.png")


def _positive(words: argparse.Namespace) -> None:
    """:raises UserError: a number that no measurement can have."""
    cores = len(os.sched_getaffinity(0))
    for key in ("count", "rounds", "seconds", "batch", "size", "threads"):
        if getattr(words, key) <= 0:
            raise UserError(f"--{key} {getattr(words, key)}: must be greater than 0")
    if words.warm_up < 0:
        raise UserError(f"--warm-up {words.warm_up}: must not be negative")
    if min(words.gpu_rate) <= 0:
        raise UserError(f"--gpu-rate {min(words.gpu_rate)}: must be greater than 0")
    if words.threads > cores:
        raise UserError(f"--threads {words.threads}: this process may use {cores} cores")


if __name__ == "__main__":
    main()
