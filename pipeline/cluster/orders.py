"""What submit's actions come to: the pieces to submit, checked, and their plan in a few lines."""

from dataclasses import replace

from pipeline.cluster import submission
from pipeline.cluster.arrays import variants
from pipeline.cluster.checks import training, transferring
from pipeline.cluster.submission import Piece, Request
from pipeline.config import TrainConfig, TransferConfig, load
from pipeline.data.index import is_index

Order = tuple[list[Piece], list[str]]


def train(path: str, overrides: list[str], sweeps: list[str], request: Request) -> Order:
    """One run, or an array of one for each combination of what is swept.

    :param sweeps: ``key=a,b`` words.
    :raises UserError: something in the config, the data or the split over the ranks is not right.
    """
    base = load(TrainConfig, path, overrides)
    configs = []
    for label, changes in variants(sweeps):
        name = [f"name={base.name}{label}"] if label else []
        configs.append(load(TrainConfig, path, [*overrides, *changes, *name]))
    return [submission.train(configs, base.folder, request)], training(configs, request)


def transfer(path: str, overrides: list[str], request: Request) -> Order:
    """One job per dataset.

    :raises UserError: as ``train``; and there must be a checkpoint.
    """
    config = load(TransferConfig, path, overrides)
    return [submission.transfer(config, request)], transferring(config, request)


def chain(
    path: str, overrides: list[str], tasks: str, prepare: list[str] | None, request: Request, nodes: str
) -> Order:
    """Prepare if there is no index, train, transfer, report; each when the one before has ended well.

    :param tasks: the transfer's config. :param prepare: words of ``launch.prepare``.
    :param nodes: of each transfer.
    :raises UserError: as ``train``.
    """
    config = load(TrainConfig, path, overrides)
    names = [f"name={config.name}", f"runs={config.runs}", f"checkpoint={config.folder}"]
    transfers = load(TransferConfig, tasks, names)
    small = replace(request, nodes=nodes)
    trains = submission.train([config], config.folder, request)
    pieces, index = [trains], True
    if prepare and not is_index(config.data.index):
        words, index = ["launch.prepare", *prepare, "--out", config.data.index], False
        alone = replace(request, gpus_per_node=0)
        first = submission.command("prepare", words, config.folder, alone)
        pieces = [first, trains.waits(afterok="prepare")]
    plan = training([config], request, index) + transferring(transfers, small, trained=False)
    report = submission.command("report", ["launch.report", str(config.folder)], config.folder, request)
    pieces.append(submission.transfer(transfers, small).waits(afterok="train"))
    pieces.append(report.waits(afterok="train", afterany="transfer"))
    return pieces, plan
