"""Writes report.md, plots/*.png and one self-contained report.html into each run's folder."""

from launch import door, parser_of

EXAMPLE = """examples:
  python -m launch.report runs/demo
  python -m launch.report runs/resnet50-a runs/resnet50-b      (and one table of both, with p, and whether
                                                                they were fed the same pictures)
"""


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.report", __doc__, EXAMPLE)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, as runs/demo")
    words = parser.parse_args(argv)
    with door():
        # Matplotlib takes a second to import: --help need not wait.
        from pipeline.report import compare, comparison_table, load, print_table, same_pictures, write

        runs = [load(folder) for folder in words.runs]
        for run in runs:
            print(write(run))
        for line in same_pictures(runs):
            print(line)
        together = [transfer | {"run": run.name} for run in runs for transfer in run.transfers]
        if len(runs) > 1 and together:
            print_table(together)
            found = compare(runs)
            if found:
                print(f"\n{comparison_table(found)}")


if __name__ == "__main__":
    main()
