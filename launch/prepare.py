"""Makes an index of pictures: one row per picture, read by every run from then on.

Killed, the same command goes on where it was. Pictures that cannot be used are left out, each with its
reason in rejected.tsv beside the index.
"""

from pathlib import Path

from launch import door, parser_of
from pipeline.data import sources
from pipeline.data.prepare import How, Summary, write_index

EXAMPLE = """examples:
  python -m launch.prepare imagenet --root /data/ILSVRC2012 --out data/imagenet --verify
  python -m launch.prepare imagenet --root /data/ILSVRC2012 --out data/imagenet-350 --pack --max-side 350
  python -m launch.prepare cub200 --root CUB_200_2011.tgz --out data/cub
  python -m launch.prepare imagefolder --root /data/flowers --out data/flowers --val 0.1
  python -m launch.prepare cifar10 --out data/animals --classes bird,cat,deer,dog,frog,horse
"""


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.prepare", __doc__, EXAMPLE)
    parser.add_argument("source", help=", ".join(sources.SOURCES))
    parser.add_argument(
        "--root",
        type=Path,
        help="folder of the raw pictures, or the publisher's archive; cifar10 and (fashion-)mnist can be "
        "fetched without. Compressed archives are unpacked into OUT.raw",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the index")
    parser.add_argument("--verify", action="store_true", help="decode every picture; leave out the bad ones")
    parser.add_argument("--pack", action="store_true", help="copy the pictures into a few large tar shards")
    parser.add_argument("--decoded", action="store_true", help="with --pack: as pixels, never decoded again")
    parser.add_argument("--max-side", type=int, metavar="N", help="with --pack: longest side, pixels")
    parser.add_argument("--quality", type=int, metavar="Q", help="with --pack: all as JPEGs of quality Q")
    parser.add_argument(
        "--shard", type=int, default=How.shard, help="pictures in a shard (default %(default)s)"
    )
    parser.add_argument(
        "--drop-duplicates", action="store_true", help="leave out training pictures that another split has"
    )
    parser.add_argument("--classes", help="only these classes, comma-separated, labelled in this order")
    parser.add_argument("--val", type=float, metavar="SHARE", help="carve a validation split out of train")
    parser.add_argument("--seed", type=int, default=0, help="of splits that are drawn (default 0)")
    parser.add_argument(
        "--no-background",
        action="store_true",
        help="caltech101: BACKGROUND_Google is not a class (101, not 102)",
    )
    words = parser.parse_args(argv)
    with door():
        how = How(
            words.verify,
            words.pack,
            words.decoded,
            words.max_side,
            words.quality,
            words.drop_duplicates,
            words.shard,
        )
        out = words.out.resolve()  # "." has no name that others could be made of
        raw = out.parent / f"{out.name}.raw"
        options = sources.Options(words.seed, not words.no_background, raw)
        source = sources.read(words.source, words.root, options)
        if words.classes:
            source = sources.select_classes(source, words.classes.split(","))
        if words.val is not None:
            source = sources.carve(source, words.val, words.seed)
        tell(write_index(source, out, how), words.out, len(source.classes))


def tell(summary: Summary, out: Path, classes: int) -> None:
    """The last lines: how many of how many, and what is not in."""
    kept, rejected = sum(summary.kept.values()), len(summary.rejected)
    splits = ", ".join(f"{name} {count}" for name, count in summary.kept.items())
    print(f"{out}: {kept} of {kept + rejected + summary.dropped} pictures, {classes} classes ({splits})")
    if rejected:
        print(f"left out {rejected}, each with its reason in {out / 'rejected.tsv'}")
    if summary.duplicates:
        pairs = len(summary.duplicates)
        done = (
            f"{summary.dropped} left out of train" if summary.dropped else "--drop-duplicates leaves them out"
        )
        print(f"{pairs} pictures of train stand in another split too ({out / 'duplicates.tsv'}); {done}")


if __name__ == "__main__":
    main()
