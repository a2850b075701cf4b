"""What a classifier with its own head is worth on a split: top-1, top-5, mean per class, cross-entropy."""

from pathlib import Path

from launch import door, parser_of, preemptible
from pipeline.config import UserError

EXAMPLE = """examples:
  torchrun --nproc-per-node 8 -m launch.evaluate resnet50-0676ba61.pth data/imagenet --split val
  python -m launch.evaluate resnet50-11ad3fa6.pth data/imagenet --split val eval_resize=232
  python -m launch.evaluate runs/cifar10-resnet20 data/cifar10 --json resnet20.json

CHECKPOINT is what launch.transfer takes: a file of launch.train or a run's folder, or weights of a ResNet
or VGG by launch.export, torchvision or timm (.pth, .safetensors). Pictures are shown as the checkpoint's
training evaluated; where a file does not say how, as usual for ImageNet: short side to 256, bilinear, the
centre 224. The pass is float32. Logit i is taken for class i of the index; a file that names its classes
must name just these.
"""

HANG_TIMEOUT = 900.0
"""Seconds without progress, as of a transfer."""


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.evaluate", __doc__, EXAMPLE)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="weights with a head")
    parser.add_argument("index", metavar="INDEX", help="folder that launch.prepare wrote")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="how pictures are shown (eval_resize, eval_size, interpolation, mean, ...), or model.name",
    )
    parser.add_argument("--split", default="test", metavar="NAME", help="of the index (default: test)")
    parser.add_argument("--ema", action="store_true", help="the moving average of the weights (train.ema)")
    parser.add_argument("--batch", type=int, default=256, metavar="N", help="pictures per forward pass")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keeps the figures, and all that decides them"
    )
    words = parser.parse_intermixed_args(argv)
    with door(), preemptible():
        if words.batch < 1:
            raise UserError(f"--batch {words.batch}: give 1 or more")
        if words.json and words.json.is_dir():
            raise UserError(f"--json {words.json}: is a folder; name a file")
        # Torch and DALI take seconds to import: these mistakes are told before.
        from pipeline.train.ranks import A_DAY, join
        from pipeline.transfer.classifier import keep, score, table

        choice = {"ema": words.ema, "batch": words.batch}
        with join(hang_timeout=HANG_TIMEOUT, longest=A_DAY) as ranks:
            found = score(words.checkpoint, words.index, words.split, words.overrides, ranks, **choice)
        if ranks.first:
            print(table(found))
            if words.json:
                keep(found, words.json)


if __name__ == "__main__":
    main()
