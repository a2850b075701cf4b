"""A checkpoint's network for other programs. What is written was read back and compared before."""

from pathlib import Path

from pipeline.config import UserError
from pipeline.export.graph import to_onnx
from pipeline.export.trained import Trained
from pipeline.export.weights import to_safetensors, to_torchvision
from pipeline.files import write_whole

SUFFIXES = {"safetensors": ".safetensors", "torchvision": ".pth", "onnx": ".onnx"}
"""Formats, and how their files end."""


def export(
    checkpoint: str | Path,
    to: str,
    out: Path | None = None,
    *,
    ema: bool = False,
    size: int | None = None,
    pixels: bool = False,
) -> str:
    """Writes the network into one file; an older file stays until a checked one takes its place.

    :param checkpoint: a file of launch.train, or a run's folder: its latest.
    :param to: a format of ``SUFFIXES``.
    :param out: none = a name of model and step, beside the checkpoint.
    :param ema: the moving average of the weights.
    :param size: ONNX: side of the pictures; none = that of the evaluation crop.
    :param pixels: ONNX: the graph takes uint8 pixels and normalises them.
    :returns: what was written, in a line.
    :raises UserError: no such checkpoint, a format that cannot hold its network, or a file that cannot be
        written.
    """
    if to not in SUFFIXES:
        raise UserError(f"--to {to}: no such format; there are {', '.join(SUFFIXES)}")
    if to != "onnx" and (pixels or size is not None):
        raise UserError(
            f"{'--pixels' if pixels else '--size'}: weights take any pictures; only ONNX has this"
        )
    trained = Trained.read(checkpoint, ema=ema)
    if to == "onnx":
        content, told = to_onnx(trained, trained.size if size is None else size, pixels)
    else:
        content, told = (to_safetensors if to == "safetensors" else to_torchvision)(trained)
    if out is None:
        folder = Path(checkpoint) if Path(checkpoint).is_dir() else trained.path.parent
        out = folder / f"{trained.title}{SUFFIXES[to]}"
    _put(out, content)
    return f"{out}: {len(content) / 1e6:.1f} MB; {told}"


def _put(out: Path, content: bytes) -> None:
    try:
        write_whole(out, content)
    except OSError as error:
        blocked = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "its folder is a file" if blocked else error.strerror
        raise UserError(f"--out {out}: cannot be written: {reason}") from None
