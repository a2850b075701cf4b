"""What a user may ask of the preparation."""

from dataclasses import dataclass

from pipeline.config import UserError

QUALITY = 90
"""Of JPEGs that are written anew where none is given: FFCV's choice for ImageNet."""


@dataclass(frozen=True)
class How:
    """:ivar verify: decode every picture, and leave out those that cannot be.
    :ivar pack: copy the pictures into shards beside the index.
    :ivar decoded: as pixels. :ivar max_side: scaled down to this longest side, pixels.
    :ivar quality: all written anew as JPEGs of this quality, 1 to 100.
    :ivar drop_duplicates: training pictures that stand in another split too are left out.
    :ivar shard: pictures in one shard.
    """

    verify: bool = False
    pack: bool = False
    decoded: bool = False
    max_side: int | None = None
    quality: int | None = None
    drop_duplicates: bool = False
    shard: int = 10_000

    def __post_init__(self):
        for key in ("decoded", "max_side", "quality"):
            if getattr(self, key) and not self.pack:
                raise UserError(f"--{key.replace('_', '-')}: says how pictures are packed; add --pack")
        if self.decoded and self.quality:
            raise UserError("--quality: of JPEGs, but --decoded stores pixels; leave one out")
        if self.max_side is not None and self.max_side < 1:
            raise UserError(f"--max-side {self.max_side}: at least 1 pixel")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UserError(f"--quality {self.quality}: from 1 to 100")
        if self.shard < 1:
            raise UserError(f"--shard {self.shard}: at least 1 picture")

    @property
    def reads(self) -> bool:
        """All of every file is read, not its header alone."""
        return self.verify or self.pack or self.drop_duplicates

    @property
    def decodes(self) -> bool:
        return self.verify or self.decoded or self.max_side is not None or self.quality is not None
