"""What a run will need, and how long it will take on 1 to 1,024 GPUs, before it runs: parameters,
operations, memory of a GPU under DDP and every ZeRO stage, bytes on the wire, cores and bandwidth to feed it,
hours and GPU-hours. Arithmetic alone, which needs no GPU and no pictures."""

import shlex
import sys
from pathlib import Path

from launch import door, parser_of
from pipeline.config import TrainConfig, UserError, load

EXAMPLE = """examples:
  python -m launch.plan configs/imagenet/resnet50.yaml
  python -m launch.plan configs/imagenet/resnet50.yaml train.batch=8192 --gpu h100 --out runs/plan
  python -m launch.plan configs/imagenet/resnet152.yaml --per-gpu-batch 64 --measured runs/on-one-gpu
  python -m launch.plan --check

How time is found. A step on one GPU takes --overhead plus its pictures' time, by the rate of one GPU
(published, --rate or --measured), for another network in proportion to multiply-adds. Two thirds of it is
backward, in which gradients become ready from the last layer to the first and leave in buckets (25 MiB under
DDP), one after the other: 2 (n - 1) / n of their bytes at 80 % of the slower line rate, a GPU's to its node
or the whole node's to the network, and 2 log2(n) hops of --latency. What is left when backward ends is waited
for; DeepSpeed's exchanges are, but for deepspeed.overlap, waited for as a whole. Stragglers, evaluation and
checkpoints are not in it. The global batch is the config's, split over the GPUs, unless --per-gpu-batch says
otherwise.
"""


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.plan", __doc__, EXAMPLE)
    _words(parser.add_argument)
    words = parser.parse_intermixed_args(argv)
    with door():
        if words.config is None and (words.out or not words.check):
            raise UserError("a config is missing: configs/imagenet/resnet50.yaml, say; or --check alone")
        config = words.config and load(TrainConfig, words.config, words.overrides)
        # Torch and Matplotlib take seconds to import: a mistake in the config is told before.
        from pipeline.plan.run import Wishes, plan

        command = shlex.join(["python", "-m", "launch.plan", *(sys.argv[1:] if argv is None else argv)])
        others = {key: value for key, value in vars(words).items() if key not in ("config", "overrides")}
        wishes = Wishes(**{key: value for key, value in others.items() if value is not None})
        print(plan(config, wishes, command))


def _words(add) -> None:
    add("config", nargs="?", help="a YAML file, see configs/")
    add("overrides", nargs="*", metavar="section.key=value", help="changes to the config")
    add("--gpu", metavar="NAME", help="v100, a100 (default), h100 or h200: rate, memory and links")
    add("--rate", type=float, metavar="N", help="pictures/s of one GPU training this network, instead")
    add("--rate-batch", type=int, metavar="N", help="pictures in a step at --rate (default 256)")
    add("--measured", metavar="RUN", help="a run of ours on one GPU: its median rate, instead")
    add("--per-gpu-batch", type=int, metavar="N", help="pictures on each GPU: the batch grows with the GPUs")
    add("--gpus-per-node", type=int, metavar="N", help="default 8")
    add("--node-bandwidth", type=float, metavar="GB/S", help="of a GPU to its node (default: the GPU's)")
    add("--network", type=float, metavar="GB/S", help="of a node (default: of a DGX with such GPUs)")
    add("--latency", type=float, metavar="US", help="of a hop (default 20 µs, assumed)")
    add("--overhead", type=float, metavar="MS", help="of any step (default 4.75 ms, fitted)")
    add("--decode-rate", type=float, metavar="N", help="pictures/s of a core (default 712)")
    add("--cores", type=int, metavar="N", help="decoding for a GPU (default: enough)")
    add("--check", action="store_true", help="also the model beside published multi-GPU figures")
    add("--out", type=Path, metavar="FOLDER", help="writes plan.md, plan.json and plan.png there")


if __name__ == "__main__":
    main()
