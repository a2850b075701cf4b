"""The model of scaling against multi-GPU figures that others have published, all of them of ResNet-50.

Each is a ratio of two rates of one system, so that only what more GPUs cost is compared. One set of
constants serves all: line rates by data sheets, ``ATTAINED`` of them, ``LATENCY``, and ``OVERHEAD``, which is
fitted on one of them.
"""

from dataclasses import dataclass
from functools import cache

from pipeline.config import TrainConfig, parse
from pipeline.plan.hardware import GPUS, RESNET50_MACS, Cluster, Rate
from pipeline.plan.network import Network, network_of
from pipeline.plan.scaling import waiting

# One 100 Gb/s card: what ibstat shows in DLPerf's report.
DLPERF = Cluster(8, 150e9, 12.5e9)
# Goyal et al. 2017, section 4: NVLink of the P100 (four links of 20 GB/s), one card of 50 Gb/s Ethernet.
BIG_BASIN = Cluster(8, 80e9, 6.25e9)
DGX1, DGX_A100, DGX_H100 = (GPUS[name].cluster for name in ("v100", "a100", "h100"))


@dataclass(frozen=True)
class Figure:
    """:ivar rate: pictures/s of a GPU in the smaller system. :ivar gpus: of the smaller and the larger one.
    :ivar pictures: on a GPU in a step, likewise. :ivar efficiency: the larger one's rate a GPU over the
        smaller one's.
    """

    title: str
    rate: float
    gpus: tuple[int, int]
    pictures: tuple[int, int]
    efficiency: float
    cluster: Cluster
    source: str
    fitted: bool = False


def _grown(title: str, alone: float, gpus: int, rate: float, pictures: int, *about) -> Figure:
    """From one GPU to ``gpus``, which reach ``rate``."""
    return Figure(title, alone, (1, gpus), (pictures, pictures), rate / alone / gpus, *about)


_EXAMPLES = "NVIDIA DeepLearningExamples"
_DLPERF = "Oneflow-Inc/DLPerf"
FIGURES = (
    _grown("V100, PyTorch, mixed precision", 1200, 8, 8322, 256, DGX1, _EXAMPLES),
    _grown("A100, PyTorch, mixed precision", 2470, 8, 16621, 256, DGX_A100, _EXAMPLES),
    _grown("A100, MXNet, mixed precision", 3411, 8, 26674, 256, DGX_A100, _EXAMPLES),
    _grown("A100, Paddle, mixed precision", 2897, 8, 23874, 256, DGX_A100, _EXAMPLES),
    _grown("V100, PyTorch, mixed precision", 802.9, 8, 6154.66, 256, DLPERF, _DLPERF),
    _grown("V100, PyTorch, mixed precision", 802.9, 16, 11991.94, 256, DLPERF, _DLPERF),
    _grown("V100, PyTorch, mixed precision", 802.9, 32, 22551.16, 256, DLPERF, _DLPERF),
    _grown("V100, PyTorch, fp32", 367.29, 8, 2887.65, 128, DLPERF, _DLPERF),
    _grown("V100, PyTorch, fp32", 367.29, 16, 5716.79, 128, DLPERF, _DLPERF),
    _grown("V100, PyTorch, fp32", 367.29, 32, 10917.09, 128, DLPERF, _DLPERF),
    # 90 epochs took 29 hours on 8 GPUs (developer.nvidia.com/facebook-trains-imagenet-1-hour).
    Figure(
        "P100, Caffe2, fp32",
        90 * 1_281_167 / (29 * 3600) / 8,
        (8, 256),
        (32, 32),
        0.9,
        BIG_BASIN,
        "Goyal et al. 2017",
    ),
    Figure("A100, MXNet, one batch", 3398, (8, 64), (408, 51), 0.77, DGX_A100, "MLPerf v2.0", fitted=True),
    Figure("H100, MXNet, one batch", 7162, (8, 64), (400, 50), 0.685, DGX_H100, "MLPerf v4.0"),
)


@dataclass(frozen=True)
class Compared:
    figure: Figure
    model: float

    @property
    def off(self) -> float:
        """How much more than what was published: 0.1 is ten percent."""
        return self.model / self.figure.efficiency - 1


def compare(overhead: float | None = None) -> list[Compared]:
    """The model's efficiency beside each published one.

    :param overhead: seconds, in place of ``OVERHEAD``.
    """
    config, network = _resnet50()
    return [Compared(figure, _efficiency(figure, network, config, overhead)) for figure in FIGURES]


def _efficiency(figure: Figure, network: Network, config: TrainConfig, overhead: float | None) -> float:
    start = figure.cluster.overhead if overhead is None else overhead
    picture = Rate(figure.rate, figure.pictures[0], RESNET50_MACS, "").seconds(network.macs, start)
    rates = []
    for gpus, pictures in zip(figure.gpus, figure.pictures, strict=True):
        computing = start + pictures * picture
        rates.append(pictures / (computing + waiting(network, config, gpus, computing, figure.cluster)))
    return rates[1] / rates[0]


@cache
def _resnet50() -> tuple[TrainConfig, Network]:
    tree = {
        "name": "published",
        "data": {"index": "imagenet"},
        "model": {"name": "resnet50"},
        "optim": {"lr": 0.1},
        "train": {"batch": 256, "epochs": 90},
    }
    config = parse(TrainConfig, tree, "published figures")
    return config, network_of(config, 1000)
