"""Writes a checkpoint's network for other programs; it is compared with the checkpoint before."""

from pathlib import Path

from launch import door, parser_of

EXAMPLE = """examples:
  python -m launch.export runs/demo --to safetensors
  python -m launch.export runs/resnet50 --to torchvision --ema --out resnet50.pth
  python -m launch.export runs/resnet50/checkpoints/best --to onnx --size 288 --pixels

safetensors  the weights by torchvision's names; metadata: classes, how pictures are normalised, the config
torchvision  a state_dict: torchvision.models.resnet50(num_classes=K).load_state_dict(torch.load(FILE))
onnx         a graph from images (N, 3, S, S) to logits (N, K), the metadata too; needs --group export
"""


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.export", __doc__, EXAMPLE)
    parser.add_argument("checkpoint", help="a file of launch.train, or a run's folder: its latest")
    parser.add_argument("--to", required=True, metavar="FORMAT", help="safetensors, torchvision or onnx")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: MODEL_step_N beside CHECKPOINT")
    parser.add_argument("--ema", action="store_true", help="the moving average of the weights (train.ema)")
    parser.add_argument(
        "--size", type=int, metavar="S", help="onnx: side of the pictures (default: as evaluated in training)"
    )
    parser.add_argument("--pixels", action="store_true", help="onnx: images are uint8 pixels, not normalised")
    words = parser.parse_args(argv)
    with door():
        # Torch takes seconds to import: --help need not wait.
        from pipeline.export import export

        choice = {"ema": words.ema, "size": words.size, "pixels": words.pixels}
        print(export(words.checkpoint, words.to, words.out, **choice))


if __name__ == "__main__":
    main()
