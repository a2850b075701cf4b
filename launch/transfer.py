"""Evaluates a checkpoint on other tasks: frozen, finetuned and from scratch, with intervals."""

from launch import door, parser_of, preemptible
from pipeline.config import TransferConfig, load

EXAMPLE = """example:
  torchrun --nproc-per-node 2 -m launch.transfer configs/demo/transfer.yaml checkpoint=runs/demo
  torchrun --nproc-per-node 2 -m launch.transfer configs/demo/transfer.yaml checkpoint=resnet50-0676ba61.pth

CHECKPOINT is a file of launch.train or a run's folder, or weights of a ResNet or VGG by launch.export,
torchvision or timm (.pth, .safetensors). The same command again continues. With --only several
jobs share the datasets.
"""


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.transfer", __doc__, EXAMPLE)
    parser.add_argument("config", help="a YAML file, see configs/transfer/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    parser.add_argument("--only", metavar="DATASET", help="one of the config's, by name or by place from 0")
    words = parser.parse_intermixed_args(argv)
    with door(), preemptible():
        config = load(TransferConfig, words.config, words.overrides)
        # Torch and DALI take seconds to import: a mistake in the config is told before.
        from pipeline.report import print_table
        from pipeline.train.ranks import A_DAY, join
        from pipeline.transfer.run import run

        with join(config.finetuned.train.device, config.hang_timeout, longest=A_DAY) as ranks:
            results = run(config, ranks, words.only)
        if ranks.first:
            print_table(results)


if __name__ == "__main__":
    main()
