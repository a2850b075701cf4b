"""How a picture becomes the network's input: crops, augmentations, sizes."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.section import Fraction, NotNegative, Positive, Section


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
        if epoch <= begin:
            return self.start
        grown = self.start + (size - self.start) * (epoch - begin) / (end - begin)
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

    @property
    def in_pairs(self) -> bool:
        """Whether two pictures are mixed with each other, so that every micro-batch must be even."""
        return self.mixup > 0 or self.cutmix > 0


class Pictures(Section):
    """How a picture becomes the network's input; the same for training, features and finetuning."""

    size: Positive = 224
    """Side of the square training input, pixels."""
    crop: Literal["random_resized", "pad"] = "random_resized"
    """Training crop: Inception's random area and aspect, or padding and a random window (CIFAR)."""
    scale: list[Annotated[float, Field(gt=0, le=1)]] = Field([0.08, 1.0], min_length=2, max_length=2)
    """Area share of a random resized crop, from and to."""
    ratio: list[Annotated[float, Field(gt=0)]] = Field([3 / 4, 4 / 3], min_length=2, max_length=2)
    """Width over height of a random resized crop, from and to; drawn log-uniformly."""
    pad: Annotated[int, Field(ge=0)] = 4
    """Pixels added at every side before the random window of ``crop: pad``."""
    pad_colour: Literal["black", "mean"] = "black"
    """Of pixels beyond a picture: black as in torchvision; or ``mean``, zero for the network like its own
    padding (fb.resnet.torch normalises first and pads then)."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip in training."""
    flip_alternately: bool = False
    """Draw a picture's flip for its first epoch alone, then mirror it every other time: each pair of epochs
    shows both sides (Jordan 2024, arXiv:2404.00498, alternating flip)."""
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
