"""The main job on real pictures, in minutes: CIFAR-10's animals to a ResNet-8 to the vehicles' table."""

import time
from pathlib import Path

from launch import door, parser_of
from launch.chain import Steps, agreed_ranks
from pipeline.config import TrainConfig, TransferConfig, load
from pipeline.data.index import is_index

ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
VEHICLES = ("airplane", "automobile", "ship", "truck")
EXAMPLE = """examples:
  python -m launch.demo
  python -m launch.demo --root ~/cifar-10-batches-py --ranks 4

Stopped at any point, the same command goes on. Results lie in runs/demo, pictures in data/. With pictures of
your own: launch.chain.
"""


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.demo", __doc__, EXAMPLE)
    parser.add_argument("--root", type=Path, help="a folder with CIFAR-10; none = it is fetched into data/")
    parser.add_argument("--ranks", type=int, help="processes; none = one per GPU, or two on the CPU")
    words = parser.parse_args(argv)
    with door():
        demo(words.root, words.ranks)


def demo(root: Path | None, ranks: int | None) -> None:
    """Prepares, trains, transfers, reports; what is done already is not done again.

    :raises UserError: the pictures cannot be had.
    """
    start = time.monotonic()
    configs = Path(__file__).parent.parent / "configs" / "demo"
    training = load(TrainConfig, configs / "train.yaml")
    transfer = load(TransferConfig, configs / "transfer.yaml")
    ranks = agreed_ranks(training, transfer, ranks)
    prepare(root, {training.data.index: ANIMALS, transfer.datasets[0].index: VEHICLES})
    with Steps() as steps:
        steps.torchrun(ranks, "launch.train", str(configs / "train.yaml"))
        steps.torchrun(ranks, "launch.transfer", str(configs / "transfer.yaml"))

    from pipeline.report import load as load_run
    from pipeline.report import write

    report = write(training.folder)
    run = load_run(training.folder)
    (test,) = [row for row in run.rows if row["split"] == "test"]
    right = f"{test['top1']:.1%} of the test pictures right, chance is {1 / len(ANIMALS):.1%}"
    print(f"\n{training.model.name} on {len(ANIMALS)} classes of animals: {right}")
    print(f"report: {report}   ({time.monotonic() - start:.0f} s)")


def prepare(root: Path | None, wanted: dict[str, tuple[str, ...]]) -> None:
    """Makes the indexes that are not there yet."""
    missing = {folder: classes for folder, classes in wanted.items() if not is_index(folder)}
    if not missing:
        return
    from pipeline.data import sources
    from pipeline.data.prepare import write_index

    cifar10 = sources.read("cifar10", root)
    for folder, classes in missing.items():
        kept = write_index(sources.select_classes(cifar10, classes), Path(folder)).kept
        print(f"{folder}: {sum(kept.values())} pictures of {', '.join(classes)}", flush=True)


if __name__ == "__main__":
    main()
