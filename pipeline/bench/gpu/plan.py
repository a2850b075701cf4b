"""What is asked of ``launch.bench gpu``: sizes, folders, and how long each section may take."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.bench.process import ROOT

SECONDS = {"tests": 200, "throughput": 300, "roofline": 60, "models": 100, "cifar": 110, "probe": 70}
"""That a section may take, in order of importance; 14 minutes in all. What one leaves, the next may use."""
LEAST = {"tests": 40, "throughput": 60, "roofline": 30, "models": 30, "cifar": 60, "probe": 30}
"""Seconds with which a section can measure anything: with less it is left out."""


RECIPES = ("resnet20_fast", "resnet20", "plain20", "resnet32", "resnet44", "resnet56", "plain56", "resnet110")


@dataclass(frozen=True)
class Sizes:
    """:ivar batches: tried without the compiler; ``batch`` is used for all else.
    :ivar rounds, steps: of our loop against torchvision's script, in turns.
    :ivar seconds, repeats: of everything else that is a rate: so long, so often.
    :ivar modes: of torch.compile. :ivar models, models_batch: measured like ``model``, shorter.
    :ivar pictures: that are made, if none are given. :ivar hardware: shares of the hardware decoder.
    :ivar whole_steps, whole_every: of whole training, and between its rows of metrics.
    :ivar copy, matrix: bytes, and the side of a square, for the ceilings. :ivar profiled: steps.
    :ivar features, val, width, classes, lambdas: of the probe.
    :ivar recipes: of ``configs/cifar10``, in order of interest. :ivar cifar_words: changes to all of them.
    :ivar alone: seconds of the first recipe alone, and then of several at once, by which it is told what
        pays.
    """

    model: str = "resnet50"
    size: int = 224
    batch: int = 256
    batches: tuple[int, ...] = (128, 256, 512)
    rounds: int = 5
    steps: int = 20
    seconds: float = 1.5
    repeats: int = 3
    modes: tuple[str, ...] = ("default", "reduce-overhead", "max-autotune-no-cudagraphs")
    models: tuple[str, ...] = ("resnet18", "vgg16", "resnet101", "resnet152")
    models_batch: int = 128
    pictures: int = 2000
    hardware: tuple[float, ...] = (0.65, 0.0, 0.9, 1.0)
    whole_steps: int = 150
    whole_every: int = 10
    copy: int = 2**31
    matrix: int = 8192
    profiled: int = 5
    features: int = 100_000
    val: int = 5_000
    width: int = 2048
    classes: int = 1000
    lambdas: int = 45
    recipes: tuple[str, ...] = RECIPES
    cifar_words: tuple[str, ...] = ()
    alone: float = 20.0


TINY = Sizes(
    **{
        "model": "resnet8",
        "size": 32,
        "batch": 4,
        "batches": (2, 4),
        "rounds": 2,
        "steps": 2,
        "seconds": 0.05,
    },
    **{"repeats": 2, "modes": ("default",), "models": ("plain8",), "models_batch": 4, "pictures": 24},
    **{"hardware": (0.65,), "whole_steps": 6, "whole_every": 1, "copy": 2**16, "matrix": 32, "profiled": 2},
    **{"features": 120, "val": 30, "width": 16, "classes": 5, "lambdas": 4, "alone": 0.5},
    **{"recipes": ("resnet20_fast", "plain20"), "cifar_words": ("train.epochs=null", "train.steps=4")},
)
"""With which a CPU goes through the same lines."""


@dataclass(frozen=True)
class Plan:
    """:ivar pictures: folder of <class>/*.jpg; none = made of Debian's photographs.
    :ivar cifar: index of CIFAR-10; none = its section is left out.
    :ivar threads: cores of everybody. :ivar together: CIFAR recipes at once.
    :ivar limits: seconds by section. :ivar again: measure what is there already once more.
    :ivar tests: of pytest, files.
    """

    device: str
    work: Path
    threads: int
    sizes: Sizes = Sizes()
    pictures: Path | None = None
    cifar: Path | None = None
    together: int = 4
    limits: dict[str, float] = field(default_factory=lambda: dict(SECONDS))
    again: bool = False
    tests: tuple[Path, ...] = tuple(sorted((ROOT / "tests").glob("test_gpu_*.py")))

    @property
    def gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def precision(self) -> str:
        """Of our steps."""
        return "bf16" if self.gpu else "fp32"

    @property
    def rival_precision(self) -> str:
        """Of torchvision's script: its ``--amp`` is fp16."""
        return "fp16" if self.gpu else "fp32"

    def folder(self, name: str) -> Path:
        """For what a section makes; it stays, so that a second call goes on with it."""
        folder = self.work / "gpu" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def told(self) -> dict[str, Any]:
        """All that figures depend on, as JSON has it."""
        about = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self.sizes).items()
        }
        pictures = self.pictures and str(self.pictures)
        return {"device": self.device, "threads": self.threads, "pictures_from": pictures, **about}
