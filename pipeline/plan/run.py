"""A plan from a config and what the user knows of the machines: text, and files if wanted."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.config import TrainConfig, UserError, load
from pipeline.files import write_whole
from pipeline.monitor.history import read_history
from pipeline.plan.hardware import DECODING, GPUS, LATENCY, OVERHEAD, Cluster, Rate
from pipeline.plan.memory import ENGINES, state
from pipeline.plan.network import Network, network_of
from pipeline.plan.pictures import pictures_of
from pipeline.plan.published import Compared, compare
from pipeline.plan.scaling import COUNTS, Row, Setting, row
from pipeline.plan.table import comparison, markdown
from pipeline.plan.wire import exchanges


@dataclass(frozen=True)
class Wishes:
    """What the door asks for, by its flags and in their units: GB/s, microseconds, milliseconds."""

    gpu: str | None = None
    rate: float | None = None
    rate_batch: int | None = None
    measured: str | None = None
    per_gpu_batch: int | None = None
    gpus_per_node: int = 8
    node_bandwidth: float | None = None
    network: float | None = None
    latency: float = 1e6 * LATENCY
    overhead: float = 1e3 * OVERHEAD
    decode_rate: float = DECODING
    cores: int | None = None
    check: bool = False
    out: Path | None = None


def plan(config: TrainConfig | None, wishes: Wishes, command: str) -> str:
    """The plan as Markdown; in ``wishes.out`` also as JSON and picture. Without a config, the comparison.

    :raises UserError: a flag, the model, the index or the measured run is not right.
    """
    _checked(wishes)
    compared = compare(wishes.overhead / 1000)
    told = comparison(compared) if wishes.check else ""
    if config is None:
        return told
    setting = setting_of(config, wishes)
    rows = [row(setting, gpus) for gpus in COUNTS]
    if all(each.problem for each in rows):
        raise UserError(rows[0].problem)
    text = markdown(setting, rows, compared, command) + ("\n" + told if told else "")
    if wishes.out is not None:
        from pipeline.plan.plot import draw

        whole = json.dumps(numbers(setting, rows, compared), indent=1, ensure_ascii=False) + "\n"
        text = text.replace(command + "\n\n", command + "\n\n![Hours and memory](plan.png)\n\n", 1)
        files = {"plan.md": text.encode(), "plan.json": whole.encode(), "plan.png": draw(setting, rows)}
        for name, content in files.items():
            write_whole(wishes.out / name, content)
    return text


def setting_of(config: TrainConfig, wishes: Wishes) -> Setting:
    """:raises UserError: the model, the index or the measured run is not right."""
    pictures = pictures_of(config)
    network = network_of(config, pictures.classes)
    gpu = GPUS[wishes.gpu or "a100"]
    known = wishes.gpu is not None or (wishes.rate is None and wishes.measured is None)
    return Setting(
        config,
        pictures,
        network,
        _rate(wishes, network, gpu.rate),
        _cluster(wishes, gpu.cluster),
        gpu.memory if known else None,
        wishes.per_gpu_batch,
        wishes.decode_rate,
        wishes.cores,
    )


def numbers(setting: Setting, rows: list[Row], compared: list[Compared]) -> dict:
    """All numbers of a plan, in bytes, seconds and pictures."""
    network, config, node = setting.network, setting.config, setting.cluster.gpus_per_node
    return {
        "network": {
            "name": network.name,
            "size": network.size,
            "precision": network.precision,
            "parameters": network.parameters,
            "macs": network.macs,
            "saved": asdict(network.saved),
        },
        "pictures": asdict(setting.pictures),
        "rate": asdict(setting.rate),
        "cluster": asdict(setting.cluster),
        "state": {str(engine): asdict(state(network, config, node, engine)) for engine in ENGINES},
        "wire": {
            str(engine): [asdict(each) for each in exchanges(network, config, node, engine)]
            for engine in ENGINES
        },
        "rows": [
            asdict(each) | ({} if each.problem else {"hours": each.hours, "gpu_hours": each.gpu_hours})
            for each in rows
        ],
        "published": [asdict(each.figure) | {"model": each.model, "off": each.off} for each in compared],
    }


def _checked(wishes: Wishes) -> None:
    if wishes.gpu not in (None, *GPUS):
        raise UserError(f"--gpu {wishes.gpu}: known are {', '.join(GPUS)}; or give --rate, or --measured RUN")
    if wishes.rate is not None and wishes.measured is not None:
        raise UserError("--rate and --measured say the same thing; give one of them")
    if wishes.rate_batch is not None and wishes.rate is None:
        raise UserError("--rate-batch: belongs to --rate, which is not given")
    for key, value in vars(wishes).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            may_be_none = key in ("overhead", "latency")
            if not (math.isfinite(value) and (value > 0 or (value == 0 and may_be_none))):
                least = "0 or more" if may_be_none else "greater than 0"
                raise UserError(f"--{key.replace('_', '-')} {value:g}: must be {least}")


def _cluster(wishes: Wishes, usual: Cluster) -> Cluster:
    return replace(
        usual,
        gpus_per_node=wishes.gpus_per_node,
        link=usual.link if wishes.node_bandwidth is None else wishes.node_bandwidth * 1e9,
        network=usual.network if wishes.network is None else wishes.network * 1e9,
        latency=wishes.latency * 1e-6,
        overhead=wishes.overhead * 1e-3,
    )


def _rate(wishes: Wishes, network: Network, published: Rate) -> Rate:
    if wishes.rate is not None:
        return Rate(wishes.rate, wishes.rate_batch or 256, network.macs, "as given")
    if wishes.measured is None:
        return published
    return _measured(wishes.measured)


def _measured(folder: str) -> Rate:
    """The median rate of a run's rows. On how many GPUs it ran its folder does not tell: one, it is taken.

    Where its pictures grew, it is what each row's rate would be on the largest, by their area."""
    run = read_history(Path(folder))
    epochs, rates = run.column("train", "images_per_s")
    if not run.config or not len(rates):
        raise UserError(f"--measured {folder}: has no rows of training with images_per_s; give --rate")
    config = load(TrainConfig, run.path / "config.yaml")
    network = network_of(config, pictures_of(config).classes)
    batch = config.train.batch // config.train.accumulate
    size, growing = config.data.pictures.size, config.data.pictures.progressive
    if growing:
        rates = rates * [(growing.side(epoch, size) / size) ** 2 for epoch in epochs]
    return Rate(float(np.median(rates)), batch, network.macs, f"the median of {folder}, taken for one GPU")
