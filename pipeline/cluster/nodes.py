"""What a job asks about its nodes: how many of them its batch can be spread over, and where they meet."""

from pipeline.cluster.client import shown
from pipeline.config import TrainConfig, TransferConfig, UserError
from pipeline.data.order import share
from pipeline.network import address_towards


def check_split(ranks: int, *configs: TrainConfig | TransferConfig) -> None:
    """:raises UserError: a global batch of a config cannot be spread evenly over so many ranks."""
    for config in configs:
        if isinstance(config, TrainConfig):
            in_pairs = config.data.pictures.augment.in_pairs
            share(config.train.batch, ranks, config.train.accumulate, in_pairs=in_pairs)
            continue
        for mode in set(config.modes) - {"frozen"}:
            train = getattr(config, mode).train
            share(train.batch, ranks, train.accumulate, f"{mode}.train.batch")


def nodes_that_fit(nodes: int, ranks_per_node: int, *configs: TrainConfig | TransferConfig) -> int:
    """The most of ``nodes`` over which the configs' batches can be spread evenly.

    A job comes back on what is left after a node died, and 7 of 8 nodes rarely divide a batch.

    :raises UserError: not even one node can.
    """
    for fewer in range(nodes, 1, -1):
        try:
            check_split(fewer * ranks_per_node, *configs)
            return fewer
        except UserError:
            continue
    check_split(ranks_per_node, *configs)
    return 1


def head_address(nodes: list[str], here: str) -> str:
    """This node's address as the job's other nodes see it; localhost if there are none.

    Asked of SLURM and the kernel, for a node's own name often means localhost on the node.

    :param nodes: of the job. :param here: this one.
    """
    others = [name for name in nodes if name != here]
    if not others:
        return "127.0.0.1"
    try:
        other = shown("node", others[0]).get("NodeAddr", others[0])
    except UserError:  # a controller that does not answer; the name mostly leads there too
        other = others[0]
    return address_towards(other)
