"""How long a step, and the run, takes on how many GPUs: the model, in full.

A step computes for overhead + pictures x seconds a picture. Backward is two thirds of it; gradients are ready
layer by layer, last layer first, in proportion to multiply-adds, and leave in buckets, one after the other,
beside it. What is not sent when backward ends is waited for, and so is all that is not sent beside it.
Not in the model: stragglers, waiting for pictures (unless their cores are given), evaluation, checkpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import TrainConfig, UserError
from pipeline.plan.hardware import Cluster, Rate
from pipeline.plan.memory import DDP, engine_of, state
from pipeline.plan.network import FP32, Network
from pipeline.plan.pictures import Pictures
from pipeline.plan.wire import DDP_BUCKET, DDP_FIRST_BUCKET, Exchange, exchanges
from pipeline.train.plan import Plan

COUNTS = tuple(2**power for power in range(11))
"""1 to 1,024 GPUs."""
BACKWARD = 2 / 3
"""Of a step's arithmetic: gradients of activations and of weights, each as long as the forward pass."""


@dataclass(frozen=True)
class Setting:
    """What a plan is made for.

    :ivar memory: a GPU's, bytes; none = not known.
    :ivar per_gpu: pictures on a GPU in a micro-batch, so that the global batch grows with the GPUs; none =
        the config's global batch, split.
    :ivar decoding: pictures/s that a core decodes. :ivar cores: for a GPU's loader; none = enough of them.
    """

    config: TrainConfig
    pictures: Pictures
    network: Network
    rate: Rate
    cluster: Cluster
    memory: float | None
    per_gpu: int | None
    decoding: float
    cores: int | None

    def config_on(self, gpus: int) -> TrainConfig:
        if self.per_gpu is None:
            return self.config
        batch = self.per_gpu * gpus * self.config.train.accumulate
        train = self.config.train.model_copy(update={"batch": batch})
        return self.config.model_copy(update={"train": train})


@dataclass(frozen=True)
class Row:
    """A run on so many GPUs; seconds, bytes. ``problem``: why there can be none.

    :ivar pictures: of a micro-batch on a GPU. :ivar waiting: of a step, for other ranks' numbers.
    :ivar efficiency: how much of the GPUs' time one GPU with the same pictures a step would have needed.
    """

    gpus: int
    problem: str = ""
    batch: int = 0
    pictures: int = 0
    steps: int = 0
    step: float = 0.0
    waiting: float = 0.0
    efficiency: float = 0.0
    memory: float = 0.0

    @property
    def pictures_per_s(self) -> float:
        return self.batch / self.step

    @property
    def hours(self) -> float:
        return self.steps * self.step / 3600

    @property
    def gpu_hours(self) -> float:
        return self.gpus * self.hours


def row(setting: Setting, gpus: int) -> Row:
    """The run on ``gpus`` GPUs."""
    config, network = setting.config_on(gpus), setting.network
    try:
        plan = Plan.of(config, setting.pictures.count, gpus)
    except UserError as problem:
        return Row(gpus, str(problem), config.train.batch)
    turns = config.train.accumulate
    seconds = setting.rate.seconds(network.macs * shrunk(plan), setting.cluster.overhead)
    computing = turns * (setting.cluster.overhead + plan.micro_batch * seconds)
    if setting.cores is not None:
        computing = max(computing, turns * plan.micro_batch / (setting.cores * setting.decoding))
    waits = waiting(network, config, gpus, computing / turns, setting.cluster)
    alone = setting.cluster.overhead * turns + config.train.batch * seconds
    held = state(network, config, gpus, engine_of(config)).total + network.saved.of(plan.micro_batch)
    step = computing + waits
    of = (config.train.batch, plan.micro_batch, plan.steps, step, waits, alone / (gpus * step), held)
    return Row(gpus, "", *of)


def shrunk(plan: Plan) -> float:
    """Work on a run's mean picture, of that on its largest: arithmetic grows with the area."""
    if plan.config.data.pictures.progressive is None:
        return 1.0
    looks = [plan.side(int((number + 0.5) / 500 * plan.steps)) for number in range(500)]
    return sum(side**2 for side in looks) / len(looks) / plan.config.data.pictures.size**2


def waiting(network: Network, config: TrainConfig, ranks: int, computing: float, cluster: Cluster) -> float:
    """Seconds of a step in which a rank waits for others' numbers.

    :param computing: seconds of one micro-batch, forward and backward.
    """
    ddp = engine_of(config) == DDP
    buckets = (DDP_FIRST_BUCKET, DDP_BUCKET) if ddp else (FP32 * config.deepspeed.bucket,) * 2
    return sum(
        _unhidden(each, network, ranks, BACKWARD * computing, cluster, buckets)
        if each.hidden
        else cluster.seconds(ranks, each.sent, each.calls)
        for each in exchanges(network, config, ranks)
    )


def _unhidden(
    exchange: Exchange,
    network: Network,
    ranks: int,
    backward: float,
    cluster: Cluster,
    buckets: tuple[int, int],
) -> float:
    """Of an exchange that goes on beside backward: what is left of it at the end, in every round."""

    def transfer(bucket: int) -> float:
        return cluster.seconds(ranks, exchange.sent / exchange.rounds * bucket / network.bytes, 1)

    return exchange.rounds * left_over(network, backward, buckets, transfer)


def left_over(
    network: Network, backward: float, buckets: tuple[int, int], transfer: Callable[[int], float]
) -> float:
    """Seconds from the end of a backward pass to that of the last bucket's transfer.

    :param buckets: bytes at which the first one, and any later one, is sent.
    :param transfer: seconds for so many bytes.
    """
    ready = free = 0.0
    filled, limit = 0, buckets[0]
    for number, layer in reversed(list(enumerate(network.layers))):
        ready += backward * layer.macs / network.macs
        filled += FP32 * layer.parameters
        if filled >= limit or number == 0:
            free = max(ready, free) + transfer(filled)
            filled, limit = 0, buckets[1]
    return free - backward
