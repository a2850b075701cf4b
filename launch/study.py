"""The lectures' claims as experiments: trains what a claim is about, measures, and writes a page that judges.

depth      plain and residual nets, deeper and shallower
vgg        11 to 19 layers, with and without batch norm
gradients  what they go through, layer by layer, at the start and along training
shortcuts  zeros against projections; what the stem saves
precompute features computed once for several tasks, against once for each
"""

import shlex
import sys
from pathlib import Path

from launch import door, parser_of, preemptible
from pipeline.config import GradientStudyConfig, PrecomputeConfig, StudyConfig, dump, full_words, load

EXAMPLE = """examples:
  python -m launch.prepare cifar10 --out data/cifar10
  python -m launch.study depth
  python -m launch.study depth seeds=[0,1,2,3,4] run.train.epochs=10 name=depth-10
  torchrun --nproc-per-node 8 -m launch.study depth full=true

The same command again continues; a second one beside it takes runs that the first has not begun (of
precompute it is refused: two would disturb each other's seconds). The page stands in runs/NAME/study.html
when all runs are done.
"""
STUDIES = {
    "depth": StudyConfig,
    "vgg": StudyConfig,
    "gradients": GradientStudyConfig,
    "shortcuts": StudyConfig,
    "precompute": PrecomputeConfig,
}


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.study", __doc__, EXAMPLE)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument(
        "words", nargs="*", metavar="CONFIG, key=value", help="none = configs/study/STUDY.yaml"
    )
    parser.add_argument("--dry-run", action="store_true", help="check config and data, list the runs, stop")
    words = parser.parse_intermixed_args(argv)
    with door(), preemptible():
        given = [word for word in words.words if "=" not in word]
        if len(given) > 1:
            parser.error(f"one config, not {len(given)}: {' '.join(given)}")
        default = Path(__file__).parent.parent / "configs" / "study" / f"{words.study}.yaml"
        path = given[0] if given else default
        overrides = full_words(path, [word for word in words.words if "=" in word])
        config = load(STUDIES[words.study], path, overrides)
        command = shlex.join(["python", "-m", "launch.study", *(sys.argv[1:] if argv is None else argv)])
        measured = isinstance(config, PrecomputeConfig)
        trainings = {} if measured else config.trainings(str(path))
        # Torch and DALI take seconds to import: a mistake in the config is told before.
        from pipeline.study.precompute import check
        from pipeline.study.run import dry_run, measure, run
        from pipeline.train.ranks import A_DAY, join

        if words.dry_run:
            if measured:
                check(config)
            print(dump(config) if measured else dry_run(words.study, config, trainings))
            return
        train = next((each.train for each in trainings.values()), None)
        with join(*((train.device, train.hang_timeout) if train else ()), longest=A_DAY) as ranks:
            out = (
                measure(config, ranks, command)
                if measured
                else run(words.study, config, trainings, ranks, command)
            )
        if ranks.first and out:
            print(out)


if __name__ == "__main__":
    main()
