"""Submits training, transfer or both to SLURM, after checking all that can be checked here."""

import re
import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path

from launch import door, parser_of, split_words
from pipeline.config import UserError

EXAMPLE = """examples:
  python -m launch.submit train configs/imagenet/resnet50.yaml train.batch=1024 --nodes 4 --gpus-per-node 8
  python -m launch.submit train configs/cifar10/resnet20.yaml --array seed=0..4 --parallel 2
  python -m launch.submit transfer configs/transfer/five.yaml checkpoint=runs/demo --gpus-per-node 8
  python -m launch.submit chain configs/imagenet/resnet50.yaml train.batch=1024 \\
      --transfer configs/transfer/five.yaml --prepare "imagenet --root /data/ILSVRC2012 --verify" \\
      --nodes 4 --gpus-per-node 8
  python -m launch.submit status runs/imagenet-resnet50

What is submitted lies in the run's folder, in slurm/: scripts, resolved configs, logs, submitted.yaml.
The same command again goes on where a run stopped.
"""


OWN = ("no-kill", "no-requeue")
"""Options that sbatch itself calls so; any other ``no-KEY`` drops KEY from our scripts."""


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
        for option in ("nodes", "transfer_nodes"):
            told = getattr(words, option, "1")  # chain alone has the second one
            if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)?", told):
                name = option.replace("_", "-")
                raise UserError(f"--{name} {told}: write a number, or MIN-MAX as in 2-4")
        words.overrides += more  # argparse takes none after an option
        # Torch takes seconds to import: a mistake in the words is told before.
        from pipeline.cluster import orders
        from pipeline.cluster.submission import submit

        request, about = _request(words), (words.config, words.overrides)
        if words.action == "train":
            pieces, plan = orders.train(*about, words.array, request)
        elif words.action == "transfer":
            pieces, plan = orders.transfer(*about, request)
        else:
            prepare = words.prepare and split_words("--prepare", words.prepare)
            more = (words.transfer, prepare, request, words.transfer_nodes)
            pieces, plan = orders.chain(*about, *more)
        tell(pieces, plan, scripts=words.dry_run)
        if not words.dry_run:
            for what, job in submit(pieces).items():
                print(f"{what}: job {job}")
            runs = " ".join(str(run) for run in pieces[0].runs)
            print(f"watch: python -m launch.submit status {runs}; squeue --me")


def tell(pieces: list, plan: list[str], scripts: bool) -> None:
    """What is going to be submitted; with the scripts themselves, if nothing will be."""
    from pipeline.cluster.script import render

    print("\n".join(plan))
    for piece in pieces:
        after = " and ".join(f"{kind} {what}" for kind, what in piece.after)
        command = shlex.join(["sbatch", str(piece.path), *piece.words])
        print(f"{piece.what}{f' ({after})' if after else ''}: {command}")
    for piece in pieces if scripts else []:
        print(f"\n# {piece.path}\n{render(piece.script, piece.settings, piece.home / 'slurm')}")


def _request(words: Namespace):
    from pipeline.cluster.submission import Request

    return Request(
        nodes=words.nodes,
        gpus_per_node=words.gpus_per_node,
        time=words.time,
        partition=words.partition,
        account=words.account,
        qos=words.qos,
        parallel=words.parallel,
        more=dict(map(_option, words.sbatch)),
    )


def _option(word: str) -> tuple[str, str | bool]:
    """An option of sbatch and its value: True if there is none, False if the word drops it."""
    from pipeline.cluster.script import options

    key, found, value = word.partition("=")
    if not re.fullmatch("[a-z][a-z-]+", key):
        raise UserError(f"--sbatch {word}: write a long option without its dashes, as in constraint=a100")
    if found:
        return key, value
    if not key.startswith("no-") or key in OWN:
        return key, True
    dropped = key.removeprefix("no-")
    if dropped not in (there := options()):
        raise UserError(f"--sbatch {word}: no script has --{dropped}; they have {', '.join(sorted(there))}")
    return dropped, False


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
            help="any other option, constraint=a100; no-KEY drops a script's, no-exclusive",
        )
        add("--parallel", type=int, metavar="P", help="tasks of an array that run at a time")
        add("--dry-run", action="store_true", help="check, print plan and scripts, submit nothing")
        if action == "train":
            add("--array", action="append", default=[], metavar="KEY=A,B", help="a run each: seed=0..4")
    add("--transfer", required=True, metavar="CONFIG", help="what follows the training")
    add("--transfer-nodes", default="1", metavar="N", help="of each transfer job (default 1)")
    add("--prepare", metavar="WORDS", help="launch.prepare's, if there is no index: 'imagenet --root DIR'")
    status = actions.add_parser("status", help="where runs stand")
    status.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, as runs/demo")
    return whole


if __name__ == "__main__":
    main()
