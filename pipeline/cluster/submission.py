"""What is submitted: batch scripts rendered into the run's folder, and how they wait for each other."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.cluster import client, record, script
from pipeline.config import TrainConfig, TransferConfig, dump
from pipeline.files import write_whole
from pipeline.monitor.codebase import code_state


@dataclass(frozen=True)
class Request:
    """What each job asks of SLURM.

    :ivar nodes: "4", or "2-4": comes back on what is left of them. :ivar gpus_per_node: 0 = a CPU partition.
    :ivar parallel: tasks of an array at a time; none = no limit.
    :ivar more: other long options of sbatch; False drops one that our script gives.
    """

    nodes: str = "1"
    gpus_per_node: int = 0
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    parallel: int | None = None
    more: Mapping[str, str | bool] = field(default_factory=dict)

    @property
    def ranks(self) -> int:
        """Of a job that gets all the nodes it may have."""
        return int(self.nodes.rpartition("-")[2]) * max(1, self.gpus_per_node)

    def settings(self) -> dict[str, object]:
        """By sbatch's long option."""
        plain = {"time": self.time, "partition": self.partition, "account": self.account, "qos": self.qos}
        return {"nodes": self.nodes, "gpus-per-node": self.gpus_per_node or None} | plain | dict(self.more)


@dataclass(frozen=True)
class Piece:
    """One sbatch: a job, or an array of them.

    :ivar what: prepare, train, transfer or report. :ivar home: the folder whose ``slurm/`` holds its files.
    :ivar runs: folders that note the job; an array's, one per task, in order.
    :ivar files: by name, beside the script. :ivar words: the script's arguments.
    :ivar after: earlier pieces that it waits for, by SLURM's kind of waiting.
    """

    what: str
    script: str
    home: Path
    runs: tuple[Path, ...]
    words: tuple[str, ...]
    settings: dict[str, object]
    files: dict[str, str] = field(default_factory=dict)
    tasks: int = 1
    after: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> Path:
        return self.home / "slurm" / f"{self.what}.sbatch"

    def waits(self, **after: str) -> "Piece":
        """The same, submitted after others: ``afterok="train"``."""
        return replace(self, after=tuple(after.items()))


def train(configs: list[TrainConfig], home: Path, request: Request) -> Piece:
    """One run, or an array of one run per config, with its files in ``home``.

    Arrays of other runs may have theirs there too, for tasks of the same numbers, or for a single one.
    """
    tasks, runs, dumped = len(configs), tuple(config.folder for config in configs), list(map(dump, configs))
    digest = hashlib.sha256("".join(dumped).encode()).hexdigest()[:8]
    file = "train.yaml" if runs == (home,) else f"train-{digest}-%a.yaml"
    files = {file.replace("%a", str(number)): config for number, config in enumerate(dumped)}
    settings = _settings("train", home, request, tasks, signal=_notice(configs[0].train.time_margin))
    return Piece("train", "train", home, runs, (str(home / "slurm" / file),), settings, files, tasks)


def transfer(config: TransferConfig, request: Request) -> Piece:
    """One job per dataset."""
    home, tasks, files = config.folder, len(config.datasets), {"transfer.yaml": dump(config)}
    words = (str(home / "slurm" / "transfer.yaml"), *(("--only", "%a") if tasks > 1 else ()))
    settings = _settings("transfer", home, request, tasks, signal=_notice(config.finetuned.train.time_margin))
    return Piece("transfer", "transfer", home, (home,), words, settings, files, tasks)


def command(what: str, words: list[str], run: Path, request: Request) -> Piece:
    """One command on one node."""
    settings = _settings(what, run, replace(request, nodes="1"))
    return Piece(what, "command", run, (run,), tuple(words), settings)


def _settings(what: str, home: Path, request: Request, tasks: int = 1, **own: str) -> dict[str, object]:
    """By sbatch's long option; what the user asks for comes before what is ours."""
    log = "%j" if tasks == 1 else "%A_%a"
    about = {"job-name": f"{what}-{home.name}", "output": home / "slurm" / f"{log}.log", **own}
    if tasks > 1:
        limit = f"%{request.parallel}" if request.parallel else ""
        about["array"] = f"0-{tasks - 1}{limit}"
    return about | request.settings()


def write(piece: Piece) -> None:
    """The script, ``job.sh`` and the configs, into ``slurm/`` of the piece's home."""
    folder = piece.home / "slurm"
    for name, text in piece.files.items():
        write_whole(folder / name, text.encode())
    write_whole(folder / script.BODY, script.body().encode())
    write_whole(piece.path, script.render(piece.script, piece.settings, folder).encode())


def submit(pieces: list[Piece]) -> dict[str, str]:
    """The jobs' ids by what they do; all of the pieces or none are submitted.

    :raises UserError: a job lives for one of the runs, or SLURM does not take a piece.
    """
    for run in dict.fromkeys(run for piece in pieces for run in piece.runs):
        record.refuse_if_live(run)
    code, jobs = code_state(), {}
    for piece in pieces:
        write(piece)
    try:
        for piece in pieces:
            jobs[piece.what] = client.sbatch(piece.path, list(piece.words), waiting(piece, jobs))
    except BaseException:
        if jobs:
            client.cancel(list(jobs.values()))
        raise
    for piece in pieces:
        for number, run in enumerate(piece.runs):
            job = f"{jobs[piece.what]}_{number}" if len(piece.runs) > 1 else jobs[piece.what]
            record.add(run, job, piece.what, ["sbatch", str(piece.path), *piece.words], code)
    return jobs


def waiting(piece: Piece, jobs: Mapping[str, str]) -> list[str]:
    """sbatch's options for what a piece waits for; it is cancelled if that can't come any more."""
    kinds = [f"{kind}:{jobs[what]}" for kind, what in piece.after if what in jobs]
    return [f"--dependency={','.join(kinds)}", "--kill-on-invalid-dep=yes"] if kinds else []


def _notice(margin: float) -> str:
    """SLURM's signal a minute before the job would stop by itself, ``margin`` minutes before its end: SLURM
    looks at its clock only now and then."""
    return f"USR1@{int(60 * margin + 60)}"
