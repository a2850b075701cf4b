"""Trains a network, or goes on where a killed or preempted run stopped."""

from launch import door, parser_of, preemptible
from pipeline.config import TrainConfig, load

EXAMPLE = """examples:
  python -m launch.train configs/cifar10/resnet20.yaml
  torchrun --nproc-per-node 8 -m launch.train configs/imagenet/resnet50.yaml train.batch=1024

The same command again continues. runs/NAME/config.yaml repeats a run: give it another name.
"""


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.train", __doc__, EXAMPLE)
    parser.add_argument("config", help="a YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the config")
    parser.add_argument(
        "--dry-run", action="store_true", help="check config and data, print the config, stop"
    )
    words = parser.parse_intermixed_args(argv)
    with door(), preemptible():
        config = load(TrainConfig, words.config, words.overrides)
        # Torch and DALI take seconds to import: a mistake in the config is told before.
        from pipeline.train import dry_run, run
        from pipeline.train.ranks import join

        if words.dry_run:
            print(dry_run(config))
            return
        with join(config.train.device, config.train.hang_timeout) as ranks:
            run(config, ranks)


if __name__ == "__main__":
    main()
