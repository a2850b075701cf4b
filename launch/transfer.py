"""Evaluates a checkpoint on other tasks: frozen, finetuned and from scratch, with intervals."""

import sys

from launch import door, parser_of
from pipeline.config import TransferConfig, load

EXAMPLE = """example:
  torchrun --nproc-per-node 2 -m launch.transfer configs/demo/transfer.yaml checkpoint=runs/demo

CHECKPOINT is a file of launch.train or a run's folder. The same command again continues.
"""


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.transfer", __doc__, EXAMPLE)
    parser.add_argument("config", help="a YAML file, see configs/transfer/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    words = parser.parse_args(argv)
    with door():
        config = load(TransferConfig, words.config, words.overrides)
        # Torch and DALI take seconds to import: a mistake in the config is told before.
        from pipeline.report import print_table
        from pipeline.train.preempt import PREEMPTED, Preempted
        from pipeline.train.ranks import join
        from pipeline.transfer.run import run

        try:
            with join() as ranks:
                results = run(config, ranks)
        except Preempted as stopped:
            print(stopped, file=sys.stderr, flush=True)
            sys.exit(PREEMPTED)
        if ranks.first:
            print_table(results)


if __name__ == "__main__":
    main()
