"""The whole network as an ONNX graph, run by ONNX Runtime before it is given away."""

import importlib

import torch
from torch import Tensor, nn

from pipeline.config import UserError
from pipeline.export.compare import Comparison, Normalise
from pipeline.export.trained import Trained

OPSET = 20
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def to_onnx(trained: Trained, size: int, pixels: bool) -> tuple[bytes, str]:
    """A graph from ``images`` (N, 3, size, size) to ``logits`` (N, classes), for any N, with the facts in its
    metadata: its content, and how it was compared.

    :param pixels: ``images`` are uint8 pixels; else float32, normalised as the metadata says.
    :raises UserError: a package is missing, or the network cannot take such pictures.
    """
    onnx, runtime = _packages()
    _check_size(trained, size)
    comparison = Comparison(trained, size)
    model = nn.Sequential(Normalise(trained.config.data.pictures), trained.model) if pixels else trained.model
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8 if pixels else torch.float32)
    graph = torch.onnx.export(
        model.eval(),
        (example,),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    ).model_proto
    _forget_origin(graph)
    onnx.helper.set_model_props(graph, trained.facts(size))
    onnx.checker.check_model(graph, full_check=True)
    content = graph.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def answer(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    told = comparison.to(answer, pixels=pixels)
    kind = "uint8 pixels" if pixels else "float32, normalised"
    return content, f"opset {OPSET}, images (N, 3, {size}, {size}) {kind}; {told}"


def _packages():
    """onnx and onnxruntime; onnxscript is torch's own need."""
    try:
        onnx, _, runtime = (importlib.import_module(name) for name in PACKAGES)
    except ModuleNotFoundError as error:
        raise UserError(f"--to onnx: needs {error.name}; uv sync --group export installs it") from None
    return onnx, runtime


def _check_size(trained: Trained, size: int) -> None:
    smallest = trained.model.pattern.smallest
    if size < smallest:
        raise UserError(f"--size {size}: {trained.config.model.name} needs pictures of {smallest} or more")


def _forget_origin(graph) -> None:
    """Drops what the exporter noted of each node: lines and paths of this machine's sources."""
    inner = graph.graph
    for place in (
        graph,
        inner,
        *inner.node,
        *inner.input,
        *inner.output,
        *inner.value_info,
        *inner.initializer,
    ):
        place.ClearField("metadata_props")
        place.ClearField("doc_string")
