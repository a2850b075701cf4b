"""A plan in a few lines, for who submits a job."""

from pipeline.config import TrainConfig
from pipeline.plan.memory import engine_of, state
from pipeline.plan.network import network_of
from pipeline.plan.pictures import pictures_of
from pipeline.plan.wire import exchanges
from pipeline.plan.words import amount
from pipeline.train.plan import Plan


def brief(config: TrainConfig, ranks: int) -> list[str]:
    """A few lines, without line ends, on a run over ``ranks`` GPUs (nodes x GPUs a node): network, pictures a
    rank and step, steps, memory of a GPU, bytes on the wire. Takes some seconds, and needs neither a GPU
    nor the index.

    :raises UserError: the ranks cannot split the global batch, or the model or the split does not exist.
    """
    pictures = pictures_of(config)
    plan = Plan.of(config, pictures.count, ranks)
    network = network_of(config, pictures.classes)
    engine = engine_of(config)
    held = state(network, config, ranks, engine)
    activations = network.saved.of(plan.micro_batch)
    sent = sum(exchange.sent for exchange in exchanges(network, config, ranks))
    turns = f" x {config.train.accumulate} micro-batches" if config.train.accumulate > 1 else ""
    return [
        f"network: {network.name}, {amount(network.parameters)} parameters, "
        f"{amount(network.macs)} multiply-adds a picture of {network.size} pixels",
        f"steps: {plan.steps:,} of {config.train.batch:,} pictures, "
        f"{plan.micro_batch:,}{turns} on each of {ranks:,} ranks "
        f"({pictures.count:,} pictures by {pictures.origin})",
        f"memory of a GPU: at least {amount(held.total + activations, 'B')}: {amount(activations, 'B')} of "
        f"activations ({network.precision}), {amount(held.total, 'B')} of weights, gradients and "
        f"optimizer ({'DDP' if engine == 'ddp' else f'DeepSpeed, stage {engine}'})",
        f"on the wire: {amount(sent, 'B')} from every rank in every step",
    ]
