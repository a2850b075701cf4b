"""From raw pictures to the transfer table on this machine: prepares, trains, transfers, reports.

On SLURM: launch.submit chain. Each step begins when the one before has ended well; what is done already is
not done again, so that the same command goes on wherever it was stopped.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from launch import NOTE, door, leave, noted, parser_of, split_words
from pipeline.cluster.nodes import check_split, nodes_that_fit
from pipeline.config import TrainConfig, TransferConfig, UserError, load
from pipeline.data.index import is_index
from pipeline.preempt import PREEMPTED, SCHEDULERS, TERMINALS

EXAMPLE = """example, of own pictures in folders by class:
  python -m launch.chain configs/imagenet/resnet18.yaml name=flowers data.index=data/flowers \\
      --transfer configs/transfer/mine.yaml \\
      --prepare "imagefolder --root /data/flowers --val 0.1 --out data/flowers" \\
      --prepare "cub200 --root CUB_200_2011.tgz --out data/cub200"

The transfer's name, runs and checkpoint are the training's.
"""


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.chain", __doc__, EXAMPLE)
    parser.add_argument("config", help="of the training: a YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the training's config")
    parser.add_argument("--transfer", required=True, metavar="CONFIG", help="what follows the training")
    parser.add_argument(
        "--prepare", action="append", default=[], metavar="WORDS", help="launch.prepare's, of a missing index"
    )
    parser.add_argument("--ranks", type=int, help="processes; none = one per GPU, or two on the CPU")
    words = parser.parse_intermixed_args(argv)
    with door():
        chain(words.config, words.overrides, words.transfer, words.prepare, words.ranks)


def chain(config: str, overrides: list[str], tasks: str, prepare: list[str], ranks: int | None) -> None:
    """
    :param tasks: the transfer's config. :param prepare: words of ``launch.prepare``, one string an index.
    :raises UserError: configs, indexes and ranks do not go together: told before anything is begun, but for
        what pictures tell that are yet to be prepared.
    """
    start = time.monotonic()
    training = load(TrainConfig, config, overrides)
    about = [f"name={training.name}", f"runs={training.runs}", f"checkpoint={training.folder}"]
    transfer = load(TransferConfig, tasks, about)
    ranks = agreed_ranks(training, transfer, ranks)
    with Steps() as steps:
        for words in missing(training, transfer, prepare):
            steps.python("launch.prepare", *words)
        check(training, transfer, ranks)
        steps.torchrun(ranks, "launch.train", config, *overrides)
        steps.torchrun(ranks, "launch.transfer", tasks, *about)
        steps.python("launch.report", str(training.folder))
    print(f"{time.monotonic() - start:.0f} s")


def agreed_ranks(training: TrainConfig, transfer: TransferConfig, ranks: int | None) -> int:
    """:param ranks: asked for; none = as many GPUs as can split all batches, or two processes on the CPU.

    :raises UserError: they cannot split a batch.
    """
    if ranks is not None and ranks < 1:
        raise UserError(f"--ranks: {ranks}; give 1 or more")
    if ranks is None:
        import torch  # takes seconds: a mistake in a config is told before

        gpus = torch.cuda.device_count()
        ranks = nodes_that_fit(gpus, 1, training, transfer) if gpus else 2
    check_split(ranks, training, transfer)
    return ranks


def missing(training: TrainConfig, transfer: TransferConfig, prepare: list[str]) -> list[list[str]]:
    """Of the indexes to prepare, the words of those that are not there.

    :raises UserError: an index is neither there nor prepared.
    """
    wanted = {"data.index": training.data.index}
    wanted |= {f"datasets.{i}.index": each.index for i, each in enumerate(transfer.datasets)}
    made = {}
    for line in prepare:
        words = split_words("--prepare", line)
        if "--out" not in words[:-1]:
            raise UserError(f"--prepare {line!r}: say where to with --out FOLDER")
        made[Path(words[words.index("--out") + 1]).absolute()] = words
    for key, folder in wanted.items():
        if not is_index(folder) and Path(folder).absolute() not in made:
            raise UserError(f'{key}: no index in {folder}; add --prepare "SOURCE --root DIR --out {folder}"')
    return [words for folder, words in made.items() if not is_index(folder)]


def check(training: TrainConfig, transfer: TransferConfig, ranks: int) -> None:
    """What training and transfer would complain of, hours later.

    :raises UserError: their complaint.
    """
    from pipeline.train import dry_run
    from pipeline.transfer.analyses import check_tasks

    dry_run(training, ranks)
    check_tasks(transfer)


class Steps:
    """Commands one after the other, which are asked to stop when this process is; a context.

    The whole ends with the code of the first that does not end well: it has said in a line why.
    """

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._asked = self._told = False

    def __enter__(self) -> "Steps":
        # What nohup or a script's & has this process ignore stays ignored.
        heard = [each for each in (*SCHEDULERS, *TERMINALS) if signal.getsignal(each) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._remember) for number in heard}
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def torchrun(self, ranks: int, module: str, *words: str) -> None:
        """Ranks of one machine; their own rendezvous, so that several jobs can run side by side."""
        threads = str(max(1, (os.cpu_count() or 1) // ranks))
        options = ("--standalone", f"--nproc-per-node={ranks}", "-m", module)
        self.python("launch.torchrun", *options, *words, environment={"OMP_NUM_THREADS": threads})

    def python(self, module: str, *words: str, environment: dict[str, str] | None = None) -> None:
        if self._asked:
            leave(PREEMPTED)
        print(f"\n$ python -m {shlex.join([module, *words])}", flush=True)
        command = [sys.executable, "-m", module, *words]
        with tempfile.TemporaryDirectory() as folder:
            # torchrun that was asked to stop ends by the signal, whether its ranks have saved or not.
            note = Path(folder) / "code"
            about = (environment or {}) | os.environ | {NOTE: str(note)}
            # A terminal's Ctrl-C would else reach torchrun too, beside what is handed on to it.
            self._process = subprocess.Popen(command, env=about, process_group=0)
            self._hand_on()  # what came while it was started
            code = noted(note, self._process.wait())
        self._process = None
        if code or self._asked:
            leave(code if code > 0 else 128 - code if code else PREEMPTED)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self._hand_on()

    def _hand_on(self) -> None:
        """As SIGTERM, on which ranks save; once: a second one would cut short torchrun's waiting for them."""
        if self._asked and not self._told and self._process is not None:
            self._told = True
            self._process.terminate()


if __name__ == "__main__":
    main()
