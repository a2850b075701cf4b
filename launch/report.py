"""Writes report.md, plots/*.png and one self-contained report.html into each run's folder."""

from pathlib import Path

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
        from pipeline import report

        folders = {Path(folder).resolve(): folder for folder in words.runs}  # each once
        runs = [report.load(folder) for folder in folders.values()]
        for run in runs:
            print(report.write(run))
        if len(runs) > 1:
            together(runs)


def together(runs: list) -> None:
    """Prints what several runs say together: of their trainings, their pictures, their transfers."""
    from pipeline import report

    if found := report.settings(runs):
        report.print_trainings(found)
    for line in report.same_pictures(runs):
        print(line)
    if transfers := [transfer | {"run": run.name} for run in runs for transfer in run.transfers]:
        report.print_table(transfers)
        if compared := report.compare(runs):
            print(f"\n{report.comparison_table(compared)}")


if __name__ == "__main__":
    main()
