"""GPUs and what joins them: published rates on one GPU, and line rates by their makers' data sheets."""

from dataclasses import dataclass

from pipeline.config import UserError

RESNET50_MACS = 4_089_184_256
"""Of one picture of 224 pixels; what the published rates were measured with."""
ATTAINED = 0.8
"""Of a line rate: NCCL's protocol takes about 20 % (one of its authors in NVIDIA/nccl-tests issue 212)."""
OVERHEAD = 4.75e-3
"""Seconds of a step that do not depend on its pictures. Fitted on one figure, MLPerf's 8 to 64 A100."""
DECODING = 712.0
"""Pictures/s of a core: torchvision, one thread, 621 to 864 of ImageNet (ternaus/imread_benchmark)."""
LATENCY = 20e-6
"""Seconds of one hop of a collective; an assumption."""


@dataclass(frozen=True)
class Rate:
    """What one GPU does without others.

    :ivar pictures_per_s: in training. :ivar batch: pictures in a step at which it was measured.
    :ivar macs: multiply-adds of a picture's forward pass in the net it was measured with.
    """

    pictures_per_s: float
    batch: int
    macs: int
    origin: str

    def seconds(self, macs: float, overhead: float) -> float:
        """Of a picture that takes ``macs`` multiply-adds, besides the step's ``overhead``: in proportion.

        :raises UserError: the overhead alone takes longer than the measured step.
        """
        step = self.batch / self.pictures_per_s
        if step <= overhead:
            raise UserError(
                f"--overhead {1000 * overhead:g}: a step of {self.batch} pictures at "
                f"{self.pictures_per_s:g} pictures/s takes {1000 * step:.3g} ms in all; give less"
            )
        return (step - overhead) / self.batch * macs / self.macs


@dataclass(frozen=True)
class Cluster:
    """:ivar link: bytes/s that a GPU can send to its node's others, line rate.
    :ivar network: bytes/s that a node can send, line rate.
    """

    gpus_per_node: int
    link: float
    network: float
    latency: float = LATENCY
    overhead: float = OVERHEAD

    def bandwidth(self, ranks: int) -> float:
        """Bytes/s that every rank of a ring sends. Over nodes the ring leaves each of them once (or there are
        as many rings as network cards, with a share of the bytes each), so the whole node's cards count."""
        slowest = self.link if ranks <= self.gpus_per_node else min(self.link, self.network)
        return ATTAINED * slowest

    def seconds(self, ranks: int, sent: float, calls: float) -> float:
        """Of ``calls`` collectives in which every rank sends ``sent`` bytes in all: there and back through a
        binary tree of ranks, as NCCL does over many nodes."""
        hops = 2 * (ranks - 1).bit_length()
        return sent / self.bandwidth(ranks) + calls * hops * self.latency


@dataclass(frozen=True)
class Gpu:
    """:ivar memory: bytes."""

    rate: Rate
    memory: float
    cluster: Cluster


def _gpu(rate: float, batch: int, origin: str, memory: float, link: float, network: float) -> Gpu:
    return Gpu(Rate(rate, batch, RESNET50_MACS, origin), memory * 1e9, Cluster(8, link * 1e9, network * 1e9))


_EXAMPLES = "NVIDIA DeepLearningExamples, PyTorch and DALI"
_MLPERF = "MLPerf v4.0, MXNet, its eight GPUs' mean: a ceiling, not every JPEG was decoded"
GPUS = {
    "v100": _gpu(1200, 256, f"{_EXAMPLES}, V100-16GB", 16, 150, 50),
    "a100": _gpu(2470, 256, f"{_EXAMPLES}, A100-80GB", 80, 300, 200),
    "h100": _gpu(7162, 400, _MLPERF, 80, 450, 400),
    "h200": _gpu(7950, 400, _MLPERF, 141, 450, 400),
}
"""In nodes of 8: DGX-1 with four network cards of 100 Gb/s, DGX A100 with eight of 200, DGX H100 of 400."""
