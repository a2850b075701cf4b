"""Submits training, transfer or both to SLURM, after checking all that can be checked here."""

import re
import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path

from launch import door, parser_of
from pipeline.config import TrainConfig, TransferConfig, UserError, load

EXAMPLE = """examples:
  python -m launch.submit train configs/imagenet/resnet50.yaml --nodes 4 --gpus-per-node 8 --time 24:00:00
  python -m launch.submit train configs/cifar10/resnet20.yaml --array seed=0..4 --parallel 2
  python -m launch.submit transfer configs/transfer.yaml checkpoint=runs/imagenet-resnet50 --gpus-per-node 8
  python -m launch.submit chain configs/imagenet/resnet50.yaml --transfer configs/transfer.yaml \\
      --prepare "imagenet --root /data/ILSVRC2012 --verify" --nodes 4 --gpus-per-node 8
  python -m launch.submit status runs/imagenet-resnet50

What is submitted lies in the run's folder, in slurm/: scripts, resolved configs, logs, submitted.yaml.
The same command again goes on where a run stopped.
"""


def main(argv: list[str] | None = None) -> None:
    words, more = parser().parse_known_args(argv)
    with door():
        if wrong := [word for word in more if word.startswith("-") or "=" not in word]:
            parser().error(f"unrecognized arguments: {' '.join(wrong)}")
        if words.action == "status":
            from pipeline.cluster.status import status

            for run in words.runs:
                print("\n  ".join(status(run)))
            return
        if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)?", words.nodes):
            raise UserError(f"--nodes {words.nodes}: write a number, or MIN-MAX as in 2-4")
        words.overrides += more  # argparse takes none after an option
        pieces, plan = {"train": trains, "transfer": transfers, "chain": chain}[words.action](words)
        print("\n".join(plan))
        for piece in pieces:
            print(f"{piece.what}: {' '.join(map(shlex.quote, ['sbatch', str(piece.path), *piece.words]))}")
        if words.dry_run:
            from pipeline.cluster.script import render

            for piece in pieces:
                print(f"\n# {piece.path}\n{render(piece.script, piece.settings, piece.home / 'slurm')}")
            return
        from pipeline.cluster.submission import submit

        for what, job in submit(pieces).items():
            print(f"{what}: job {job}")
        print(f"watch: python -m launch.submit status {pieces[0].runs[0]}; squeue --me")


def trains(words: Namespace) -> tuple[list, list[str]]:
    """The pieces of ``submit train``, and what is told of them."""
    from pipeline.cluster import submission
    from pipeline.cluster.arrays import variants
    from pipeline.cluster.checks import training

    base = load(TrainConfig, words.config, words.overrides)
    configs = []
    for label, overrides in variants(words.array):
        name = [f"name={base.name}{label}"] if label else []
        configs.append(load(TrainConfig, words.config, [*words.overrides, *overrides, *name]))
    request = _request(words)
    plan = training(configs, request, will_prepare=bool(getattr(words, "prepare", None)))
    return [submission.train(configs, base.folder, request)], plan


def transfers(words: Namespace) -> tuple[list, list[str]]:
    """The piece of ``submit transfer``, and what is told of it."""
    from pipeline.cluster import submission
    from pipeline.cluster.checks import transferring

    config = load(TransferConfig, words.config, words.overrides)
    request = _request(words)
    return [submission.transfer(config, request)], transferring(config, request)


def chain(words: Namespace) -> tuple[list, list[str]]:
    """The pieces of ``submit chain``, and what is told of them: prepare, train, transfer, report."""
    from dataclasses import replace

    from pipeline.cluster import submission
    from pipeline.cluster.checks import missing_index, transferring

    if words.array:
        raise UserError("--array: a chain is of one run; submit the runs first, then the transfer of each")
    config = load(TrainConfig, words.config, words.overrides)
    names = [f"name={config.name}", f"runs={config.runs}", f"checkpoint={config.folder}"]
    tasks = load(TransferConfig, words.transfer, names)
    pieces, plan = trains(words)
    request = _request(words)
    small = replace(request, nodes=words.transfer_nodes)
    if words.prepare and missing_index(config):
        prepare = ["launch.prepare", *shlex.split(words.prepare), "--out", config.data.index]
        alone = replace(request, gpus_per_node=0)
        pieces = [
            submission.command("prepare", prepare, config.folder, alone),
            pieces[0].waits(afterok="prepare"),
        ]
    pieces.append(submission.transfer(tasks, small).waits(afterok="train"))
    report = submission.command("report", ["launch.report", str(config.folder)], config.folder, request)
    pieces.append(report.waits(afterok="train", afterany="transfer"))
    return pieces, [*plan, *transferring(tasks, small, trained=False)]


def _request(words: Namespace):
    from pipeline.cluster.submission import Request

    more = {}
    for word in words.sbatch:
        key, found, value = word.partition("=")
        if not re.fullmatch("[a-z][a-z-]+", key):
            raise UserError(f"--sbatch {word}: write a long option without its dashes, as in constraint=a100")
        more[key] = value if found else True
    return Request(
        nodes=words.nodes,
        gpus_per_node=words.gpus_per_node,
        time=words.time,
        partition=words.partition,
        account=words.account,
        qos=words.qos,
        parallel=words.parallel,
        more=more,
    )


def parser() -> ArgumentParser:
    whole = parser_of("launch.submit", __doc__, EXAMPLE)
    actions = whole.add_subparsers(dest="action", required=True, metavar="train|transfer|chain|status")
    for action, about in (
        ("train", "one run, or an array of them"),
        ("transfer", "one job per dataset of the config"),
        (
            "chain",
            "prepare if there is no index, train, transfer, report; each when the one before ended well",
        ),
    ):
        one = actions.add_parser(action, help=about)
        add = one.add_argument
        add("config", help="a YAML file, see configs/")
        add("overrides", nargs="*", metavar="section.key=value", help="changes to the config")
        add("--nodes", default="1", metavar="N", help="or MIN-MAX: comes back on what is left (default 1)")
        add("--gpus-per-node", type=int, default=0, metavar="G", help="one rank each (default 0: CPUs)")
        add("--time", help="sbatch's, as 24:00:00")
        add("--partition", help="sbatch's")
        add("--account", help="sbatch's")
        add("--qos", help="sbatch's")
        add(
            "--sbatch",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="any other option, constraint=a100",
        )
        add("--parallel", type=int, metavar="P", help="tasks of an array that run at a time")
        add("--dry-run", action="store_true", help="check, print plan and scripts, submit nothing")
        if action != "transfer":
            add("--array", action="append", default=[], metavar="KEY=A,B", help="a run each: seed=0..4")
    add("--transfer", required=True, metavar="CONFIG", help="what follows the training")
    add("--transfer-nodes", default="1", metavar="N", help="of each transfer job (default 1)")
    add("--prepare", metavar="WORDS", help="launch.prepare's, if there is no index: 'imagenet --root DIR'")
    status = actions.add_parser("status", help="where runs stand")
    status.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, as runs/demo")
    return whole


if __name__ == "__main__":
    main()
