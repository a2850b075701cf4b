"""Everything about a job that can be checked before it waits in a queue, and what is told of its plan."""

from pathlib import Path

from pipeline.cluster.nodes import check_split
from pipeline.cluster.submission import Request
from pipeline.config import TrainConfig, TransferConfig, UserError
from pipeline.plan import brief
from pipeline.train import checkpoint, dry_run
from pipeline.transfer.analyses import check_tasks


def training(configs: list[TrainConfig], request: Request, index: bool = True) -> list[str]:
    """:param index: whether there is one already, that can be looked at.

    :raises UserError: as training would: the data, the network, the batch's split over the ranks.
    """
    for config in configs:
        check_split(request.ranks, config)
        if index:
            dry_run(config, request.ranks)
    runs = ", ".join(str(config.folder) for config in configs)
    told = [f"{runs}: {request.nodes} nodes x {request.gpus_per_node or 'no'} GPUs"]
    return [*told, *brief(configs[0], request.ranks)]


def transferring(config: TransferConfig, request: Request, trained: bool = True) -> list[str]:
    """:param trained: the checkpoint must be there already.

    :raises UserError: as transfer would: checkpoint, data, the batches' split over the ranks.
    """
    check_split(request.ranks, config)
    path = Path(config.checkpoint)
    if trained and (checkpoint.latest(path) is None if path.is_dir() else not path.exists()):
        raise UserError(f"checkpoint: {path}: no checkpoint there; train first, or use submit chain")
    check_tasks(config)
    names = ", ".join(dataset.name for dataset in config.datasets)
    return [f"{config.folder}/transfer: {names}, {request.ranks} ranks each"]
