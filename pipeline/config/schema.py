"""The schema: what can be set in a run, with what it means, its bounds and its default."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """Strict and closed: a wrong type or an unknown key is an error, never a silent default."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )


class Progressive(Section):
    """Training on small pictures first (FFCV, MosaicML): the side grows linearly to ``size``."""

    start: Positive
    """Side at the start, pixels."""
    epochs: list[NotNegative] = Field(min_length=2, max_length=2)
    """The side grows from the first of these epochs to the second."""
    multiple: Positive = 32
    """Sides in between are rounded down to multiples of this."""

    @model_validator(mode="after")
    def _ordered(self):
        begin, end = self.epochs
        if begin > end:
            raise ValueError(f"epochs: [{begin}, {end}] runs backwards; write [{end}, {begin}]")
        return self

    def side(self, epoch: float, size: int) -> int:
        """Pixels at an epoch, fractions counting; ``size`` from the last of ``epochs`` on."""
        begin, end = self.epochs
        if epoch >= end:
            return size
        grown = self.start + (size - self.start) * max(0.0, (epoch - begin) / (end - begin))
        return max(self.start, int(grown // self.multiple) * self.multiple)


class Augment(Section):
    """What is done to training pictures beyond crop and flip; every draw is keyed like the crop's."""

    policy: Literal["none", "trivial", "rand"] = "none"
    """TrivialAugment wide (Müller and Hutter 2021), RandAugment (Cubuk et al. 2020), or neither."""
    ops: Positive = 2
    """RandAugment: operations one after the other on a picture."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """RandAugment: strength of every operation, of 30."""
    erase: Fraction = 0.0
    """Probability that a random rectangle is blanked (Zhong et al. 2020)."""
    mixup: NotNegative = 0.0
    """Alpha of mixup's Beta distribution (Zhang et al. 2018); 0 = off."""
    cutmix: NotNegative = 0.0
    """Alpha of cutmix's Beta distribution (Yun et al. 2019); 0 = off. With mixup: either, evenly."""


class Pictures(Section):
    """How a picture becomes the network's input; the same for training, features and finetuning."""

    size: Positive = 224
    """Side of the square training input, pixels."""
    crop: Literal["random_resized", "pad"] = "random_resized"
    """Training crop: Inception's random area and aspect, or zero padding and a random window (CIFAR)."""
    scale: list[Annotated[float, Field(gt=0, le=1)]] = Field([0.08, 1.0], min_length=2, max_length=2)
    """Area share of a random resized crop, from and to."""
    ratio: list[Annotated[float, Field(gt=0)]] = Field([3 / 4, 4 / 3], min_length=2, max_length=2)
    """Width over height of a random resized crop, from and to; drawn log-uniformly."""
    pad: Annotated[int, Field(ge=0)] = 4
    """Black pixels added at every side before the random window of ``crop: pad``."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip in training."""
    progressive: Progressive | None = None
    """Smaller training pictures in the first epochs; none = ``size`` throughout."""
    augment: Augment = Augment()
    """Further changes to training pictures; none by default."""
    eval_size: Positive | None = None
    """Side of the centre crop in evaluation; none = ``size``."""
    eval_resize: Positive | None = 256
    """Short side to which evaluation resizes before the centre crop; none = not resized."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Resampling, antialiased as Pillow's."""
    mean: list[float] = Field([0.485, 0.456, 0.406], min_length=3, max_length=3)
    """Per channel, of pixels in 0..1."""
    std: list[Annotated[float, Field(gt=0)]] = Field([0.229, 0.224, 0.225], min_length=3, max_length=3)
    """Per channel, of pixels in 0..1."""

    @model_validator(mode="after")
    def _ordered(self):
        for key in ("scale", "ratio"):
            low, high = getattr(self, key)
            if low > high:
                raise ValueError(f"{key}: [{low}, {high}] runs backwards; write [{high}, {low}]")
        if self.eval_resize is not None and self.eval_resize < self.evaluation_size:
            raise ValueError(
                f"eval_resize: {self.eval_resize} is smaller than the evaluation crop "
                f"{self.evaluation_size}; give at least {self.evaluation_size}, or null"
            )
        if self.progressive is not None:
            if self.crop != "random_resized":
                raise ValueError("progressive: needs crop: random_resized, which scales; pad does not")
            if self.progressive.start > self.size:
                raise ValueError(
                    f"progressive.start: {self.progressive.start} is more than size {self.size}; it must grow"
                )
        return self

    @property
    def evaluation_size(self) -> int:
        return self.eval_size or self.size


class Loading(Section):
    """How fast pictures are read; nothing here changes which pictures come or how they look."""

    threads: Positive | None = None
    """DALI's worker threads per rank; none = this rank's share of the machine's cores."""
    prefetch: Positive = 2
    """Batches that DALI prepares ahead."""
    readers: Positive = 8
    """Threads that read files ahead of decoding: more where a file system answers slowly."""
    read_ahead: Positive = 4
    """Batches whose files are read, or being read, before DALI wants them."""
    fault_limit: Fraction = 0.001
    """Share of the training pictures that may turn out unreadable (each is replaced) before the job stops."""
    hardware_load: Fraction = 0.65
    """Share of JPEG decoding given to a GPU's hardware decoder where there is one."""


class Data(Section):
    index: str
    """Folder that ``launch.prepare`` wrote."""
    train: str = "train"
    """Split to train on."""
    val: str | None = "val"
    """Split to watch while training; none = no watching."""
    test: str | None = None
    """Split to evaluate once, after the last step."""
    pictures: Pictures = Pictures()
    loading: Loading = Loading()


class Model(Section):
    name: str
    """A name of the pattern: resnet50, resnet20, plain34, vgg16_bn, ..."""
    zero_init: bool = False
    """Start the last batch norm of every residual block at zero (Goyal et al. 2017, 5.1)."""
    shortcut: Literal["projection", "pad"] | None = None
    """Shortcut where shapes change: 1x1 convolution, or subsample and pad; none = the name's own."""
    norm: bool | None = None
    """Batch norm; none = the name's own."""
    width: Annotated[float, Field(gt=0)] = 1.0
    """Multiplies every channel count."""
    dropout: Fraction | None = None
    """Of VGG's classifier; none = the name's own."""
    checkpoint: str | None = None
    """Weights to start from: a checkpoint of ours. A head of another size is drawn anew."""


class Optimizer(Section):
    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate for the global batch as given; nothing rescales it."""
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: NotNegative = 1e-4
    """For weights of convolutions and linear layers; norms and biases never decay."""
    warmup: NotNegative = 0.0
    """Epochs of linear growth from lr/warm-up steps to lr."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """After the warm-up: down to zero at the last step, or not at all."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the whole gradient; none = no clipping."""


class Train(Section):
    batch: Positive
    """Pictures per optimizer step over all ranks and accumulation: the global batch."""
    epochs: Annotated[float, Field(gt=0)]
    """Passes over the training split; fractions count."""
    accumulate: Positive = 1
    """Micro-batches per step on each rank."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto = bf16 where the GPU has it, else fp16 on a GPU, fp32 on the CPU."""
    channels_last: bool = True
    compile: bool = False
    """torch.compile the model: pays after some minutes of training."""
    label_smoothing: Fraction = 0.0
    deterministic: bool = False
    """On a GPU: only deterministic kernels, so that a continued run is bit-identical there too."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto = GPUs where there are any."""


class Checkpoint(Section):
    every: Annotated[float, Field(gt=0)] = 1.0
    """Epochs between saves; one is always written after the last step."""
    keep: Positive = 2
    """How many of the newest are kept."""


class Monitor(Section):
    log_every: Positive = 1
    """Steps between rows of metrics.jsonl (and W&B)."""
    eval_every: Annotated[float, Field(gt=0)] = 1.0
    """Epochs between evaluations on ``data.val``."""
    wandb: bool = True
    """Also log to Weights & Biases; offline where no key is known."""
    project: str = "convnets"
    """W&B project."""
    samples: Annotated[int, Field(ge=0)] = 24
    """Pictures with their predictions kept for the report."""


class TrainConfig(Section):
    """One training run: ``torchrun ... -m launch.train CONFIG``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$")]
    """The run's folder under ``runs``."""
    runs: str = "runs"
    """Folder of all runs."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    engine: Literal["ddp"] = "ddp"
    data: Data
    model: Model
    optim: Optimizer
    train: Train
    checkpoint: Checkpoint = Checkpoint()
    monitor: Monitor = Monitor()

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name


class Recipe(Section):
    """How one mode of transfer trains: the part of a TrainConfig that differs from mode to mode."""

    optim: Optimizer
    train: Train


class Dataset(Section):
    """One downstream task and its protocol."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    index: str
    train: str = "train"
    test: str = "test"
    per_class: Positive | None = None
    """Training pictures of each class, drawn by seed without replacement; none = all."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the training pictures on which the regularisation is chosen; refitted on all of them."""
    choose_by: Literal["top1", "loss"] = "top1"
    """What is compared on validation: top-1 as in the lineage, or cross-entropy where pictures are few."""
    metric: Literal["top1"] = "top1"
    seeds: Positive = 3
    """Repetitions, each with other training pictures and another random start."""


class TransferConfig(Section):
    """Frozen, finetuned and from scratch: ``torchrun ... -m launch.transfer CONFIG checkpoint=PATH``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$")]
    runs: str = "runs"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    checkpoint: str
    """A checkpoint of launch.train, or a run's folder: its latest."""
    datasets: list[Dataset] = Field(min_length=1)
    modes: list[Literal["frozen", "finetuned", "scratch"]] = ["frozen", "finetuned", "scratch"]
    pictures: Pictures = Pictures()
    loading: Loading = Loading()
    batch: Positive = 256
    """Pictures per forward pass of a rank when features are computed or a test set is evaluated."""
    finetuned: Recipe
    scratch: Recipe
    monitor: Monitor = Monitor()

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name
