"""Pictures as the wild has them: odd but good ones, and files that are no pictures."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Image.MAX_IMAGE_PIXELS = None  # one of them is meant to be large


def photograph(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Smooth shapes with some fine grain: like a photograph, neither flat nor pure noise."""
    coarse = Image.fromarray(rng.integers(0, 255, (height // 20 + 2, width // 20 + 2, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.BICUBIC), np.float32)
    return Image.fromarray((smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8))


def encoded(picture: Image.Image, kind: str = "JPEG", **how) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 93} if kind == "JPEG" else {}) | how)
    return file.getvalue()


def ycck(picture: Image.Image) -> bytes:
    """A CMYK JPEG whose Adobe marker says that its channels are YCC and K."""
    content = bytearray(encoded(picture.convert("CMYK")))
    transform = content.index(b"Adobe") + 11
    assert content[transform] == 0
    content[transform] = 2
    return bytes(content)


def png16(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint16 as a PNG of 16 bits a channel, which Pillow does not write."""
    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)

    def chunk(name: bytes, content: bytes) -> bytes:
        length, check = (struct.pack(">I", number) for number in (len(content), zlib.crc32(name + content)))
        return length + name + content + check

    about = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", about), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _rotated(picture: Image.Image) -> bytes:
    exif = picture.getexif()
    exif[0x0112] = 6  # a quarter turn
    return encoded(picture, exif=exif)


def _alpha(picture: Image.Image) -> bytes:
    picture = picture.copy()
    picture.putalpha(picture.convert("L"))
    return encoded(picture, "PNG")


def _sixteen(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(np.uint16) * 257


GOOD: dict[str, Callable[[Image.Image], bytes]] = {
    "plain.jpg": encoded,
    "progressive.jpg": lambda p: encoded(p, progressive=True),
    "gray.jpg": lambda p: encoded(p.convert("L")),
    "cmyk.jpg": lambda p: encoded(p.convert("CMYK")),
    "ycck.jpg": ycck,
    "rotated.jpg": _rotated,
    "rotated.tif": lambda p: encoded(p, "TIFF", tiffinfo={0x0112: 6}),
    "palette.png": lambda p: encoded(p.convert("P"), "PNG"),
    "alpha.png": _alpha,
    "sixteen.png": lambda p: png16(_sixteen(p)),
    "gray16.png": lambda p: encoded(Image.fromarray(_sixteen(p.convert("L"))), "PNG"),
    "a_png.JPEG": lambda p: encoded(p, "PNG"),
    "picture.webp": lambda p: encoded(p, "WEBP"),
    "one_pixel.jpg": lambda p: encoded(p.crop((0, 0, 1, 1))),
    "one_pixel.png": lambda p: encoded(p.crop((0, 0, 1, 1)), "PNG"),
    "long.jpg": lambda p: encoded(p.resize((20_000, 30))),
    "tall.png": lambda p: encoded(p.resize((3, 20_000)), "PNG"),
}
"""Every one of them is kept, and looks as Pillow reads it."""

BAD: dict[str, tuple[Callable[[Image.Image], bytes], str]] = {
    "empty.jpg": (lambda p: b"", "empty"),
    "page.jpg": (lambda p: b"<!DOCTYPE html><html>404</html>", "an HTML page, not a picture"),
    "text.jpg": (lambda p: b"hello", "not a picture"),
    "moving.gif": (lambda p: encoded(p, "GIF"), "a GIF file, which cannot be decoded in training"),
    "header_cut.jpg": (lambda p: encoded(p)[:20], "a truncated JPEG"),
    "cut.jpg": (lambda p: encoded(p)[:4000], "a truncated JPEG"),
    "last_byte.jpg": (lambda p: encoded(p)[:-1], "a truncated JPEG"),
    "cut.png": (lambda p: encoded(p, "PNG")[:9000], "a damaged png file: cannot be decoded"),
    "cut.webp": (lambda p: encoded(p, "WEBP")[:900], "damaged: could not create decoder object"),
}
"""Every one of them is left out by ``--verify``, with this reason."""


def write_odd(root: Path) -> list[str]:
    """All of them below ``root``; their names, sorted."""
    picture = photograph(np.random.default_rng(3), 120, 160)
    root.mkdir(parents=True, exist_ok=True)
    for name, make in GOOD.items():
        (root / name).write_bytes(make(picture))
    for name, (make, _) in BAD.items():
        (root / name).write_bytes(make(picture))
    return sorted([*GOOD, *BAD])


def as_pillow_reads(path: Path) -> np.ndarray:
    """(H, W, 3) uint8. Of 16 bits a channel Pillow makes 8 by cutting off; the decoder rounds, as here."""
    with Image.open(path) as picture:
        if picture.mode == "I;16":
            gray = np.rint(np.asarray(picture) / 257).astype(np.uint8)
            return np.repeat(gray[..., None], 3, axis=2)
        turned, pixels = picture.format == "TIFF", np.asarray(picture.convert("RGB"))
    return np.rot90(pixels) if turned else pixels  # of all kinds Pillow turns this one alone by its tag
