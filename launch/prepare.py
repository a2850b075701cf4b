"""Makes an index of a folder of pictures: one row per picture, read by every run from then on."""

from pathlib import Path

from launch import door, parser_of
from pipeline.data import sources
from pipeline.data.prepare import write_index

EXAMPLE = """examples:
  python -m launch.prepare imagenet --root /data/ILSVRC2012 --out data/imagenet
  python -m launch.prepare imagefolder --root /data/flowers --out data/flowers --val 0.1
  python -m launch.prepare cifar10 --out data/animals --classes bird,cat,deer,dog,frog,horse
"""


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.prepare", __doc__, EXAMPLE)
    parser.add_argument("source", help=", ".join(sources.SOURCES))
    parser.add_argument(
        "--root", type=Path, help="folder of the raw pictures; cifar10 can be fetched without"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the index")
    parser.add_argument("--classes", help="only these classes, comma-separated, labelled in this order")
    parser.add_argument("--val", type=float, metavar="SHARE", help="carve a validation split out of train")
    parser.add_argument("--seed", type=int, default=0, help="of the carved split (default 0)")
    words = parser.parse_args(argv)
    with door():
        source = sources.read(words.source, words.root)
        if words.classes:
            source = sources.select_classes(source, words.classes.split(","))
        if words.val is not None:
            source = sources.carve(source, words.val, words.seed)
        kept, rejected = write_index(source, words.out)
        splits = ", ".join(f"{name} {len(part)}" for name, part in source.splits.items())
        print(f"{words.out}: {kept} of {kept + rejected} pictures, {len(source.classes)} classes ({splits})")
        if rejected:
            print(f"left out {rejected}, each with its reason in {words.out / 'rejected.tsv'}")


if __name__ == "__main__":
    main()
