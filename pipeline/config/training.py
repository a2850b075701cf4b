"""A training run: what can be set in it, with what it means, its bounds and its default."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.pictures import Pictures
from pipeline.config.section import Fraction, NotNegative, Positive, Section


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
    conv_std: Annotated[float, Field(gt=0)] | None = None
    """Convolutions start as N(0, conv_std^2); none = He et al. 2015 (arXiv:1502.01852), by their width."""
    checkpoint: str | None = None
    """Weights to start from: of ours, torchvision or timm. The head is kept where the file names just these
    classes in this order, as ours may; else it is drawn anew."""
    ema: bool = False
    """Start from the checkpoint's moving average (``train.ema``) instead of its raw weights."""


class Optimizer(Section):
    name: Literal["sgd", "lars", "adamw"] = "sgd"
    """SGD with momentum; LARS (You et al. 2017) for very large batches; AdamW (Loshchilov, Hutter 2019)."""
    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate: for the global batch as given, or for ``lr_batch``."""
    lr_batch: Positive | None = None
    """Scale linearly (Goyal et al. 2017): the peak is lr x train.batch / lr_batch; none = lr as it is."""
    backbone_lr_scale: Annotated[float, Field(gt=0)] | None = None
    """Finetuning: multiplies the learning rate of all but the head, as 0.1; none = one rate for both."""
    momentum: Fraction = 0.9
    """Of SGD and LARS."""
    nesterov: bool = True
    """Of SGD."""
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field([0.9, 0.999], min_length=2, max_length=2)
    """Of AdamW."""
    trust: Annotated[float, Field(gt=0)] = 0.001
    """Of LARS: a layer's rate is lr x trust x |weights| / (|gradient| + weight_decay x |weights|)."""
    weight_decay: NotNegative = 1e-4
    """For weights of convolutions and linear layers; norms and biases never decay."""
    warmup: NotNegative = 0.0
    """Epochs of linear growth from lr/warm-up steps to lr."""
    schedule: Literal["cosine", "linear", "step", "constant"] = "cosine"
    """After the warm-up: down to zero at the last step, or a tenth at each of ``milestones``, or constant."""
    milestones: list[NotNegative] = Field([])
    """Epochs at which ``schedule: step`` divides the learning rate by ten."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the whole gradient; none = no clipping."""

    @model_validator(mode="after")
    def _milestones(self):
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError("milestones: schedule: step needs them, and no other schedule has any")
        if self.milestones != sorted(self.milestones):
            raise ValueError(f"milestones: {self.milestones} must rise; write {sorted(self.milestones)}")
        return self


class DeepSpeed(Section):
    """What ``engine: deepspeed`` spreads over the ranks (Rajbhandari et al. 2020, ZeRO)."""

    stage: Literal[0, 1, 2, 3] = 1
    """0 = nothing; 1 = the optimizer's state; 2 = gradients too; 3 = weights too."""
    bucket: Positive = 25_000_000
    """Numbers that are reduced, or gathered, at once (stages 1 to 3); fewer take less memory."""
    overlap: bool = False
    """Reduce gradients while backward goes on (stages 1 to 3, GPUs)."""


class Train(Section):
    batch: Positive
    """Pictures per optimizer step over all ranks and accumulation: the global batch."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training split; fractions count."""
    steps: Positive | None = None
    """Optimizer steps, in place of ``epochs`` or, with both, where these are more."""
    accumulate: Positive = 1
    """Micro-batches per step on each rank."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto = bf16 where the GPU has it, else fp16 on a GPU, fp32 on the CPU."""
    channels_last: bool = True
    compile: bool = False
    """torch.compile the model: pays after some minutes of training."""
    label_smoothing: Fraction = 0.0
    sync_batchnorm: bool = False
    """Batch-norm statistics over all ranks' pictures; else over each rank's micro-batch ("ghost" batches)."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Also keep an exponential moving average of the weights, with this decay per step; none = don't."""
    nonfinite_limit: Positive = 10
    """Steps in a row with a non-finite gradient (each is skipped) after which the job stops."""
    time_limit: Annotated[float, Field(gt=0)] | None = None
    """Minutes from the command on, after which the job saves and ends with 75; SLURM's end is kept anyway."""
    time_margin: NotNegative = 2.0
    """Minutes before the time limit, or SLURM's end time, at which the job stops."""
    hang_timeout: Annotated[float, Field(gt=0)] = 900.0
    """Seconds without progress after which the job ends, saying which rank is stuck, and where."""
    deterministic: bool = False
    """On a GPU: only deterministic kernels, so that a continued run is bit-identical there too. A VGG then
    needs pictures of 224 pixels, or a multiple."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto = GPUs where there are any."""

    @model_validator(mode="after")
    def _ends(self):
        if self.epochs is None and self.steps is None:
            raise ValueError("epochs: missing; say when training ends: epochs: 90, or steps: 20000")
        return self

    @model_validator(mode="after")
    def _time(self):
        if self.time_limit is not None and self.time_limit <= self.time_margin:
            raise ValueError(
                f"time_limit: {self.time_limit:g} minutes are not more than time_margin "
                f"{self.time_margin:g}; no step would be done"
            )
        return self


class Checkpoint(Section):
    every: Annotated[float, Field(gt=0)] = 1.0
    """Epochs between saves; one is always written after the last step."""
    keep: Positive = 2
    """How many of the newest are kept."""
    best: bool = True
    """Also save, and keep, the one with the highest top-1 on ``data.val``."""
    background: bool = True
    """Write while training goes on."""


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
    gradients_every: Positive | None = None
    """Steps between looks at the gradient's flow, layer by layer; none = never."""
    profile: list[Positive] | None = Field(None, min_length=2, max_length=2)
    """First and last step of a profiler trace of the first rank; none = only when asked for in the run."""

    @model_validator(mode="after")
    def _ordered(self):
        if self.profile is not None and self.profile[0] > self.profile[1]:
            raise ValueError(f"profile: {self.profile} runs backwards; write {self.profile[::-1]}")
        return self


class TrainConfig(Section):
    """One training run: ``torchrun ... -m launch.train CONFIG``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$")]
    """The run's folder under ``runs``."""
    runs: str = "runs"
    """Folder of all runs."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    engine: Literal["ddp", "deepspeed"] = "ddp"
    deepspeed: DeepSpeed = DeepSpeed()
    """Used by ``engine: deepspeed`` alone."""
    data: Data
    model: Model
    optim: Optimizer
    train: Train
    checkpoint: Checkpoint = Checkpoint()
    monitor: Monitor = Monitor()

    @model_validator(mode="after")
    def _spares_what_was_learned(self):
        if self.optim.backbone_lr_scale is not None and self.model.checkpoint is None:
            raise ValueError(
                f"optim.backbone_lr_scale: {self.optim.backbone_lr_scale:g} spares weights that were learned "
                "before; without model.checkpoint there are none: leave it out"
            )
        return self

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name
