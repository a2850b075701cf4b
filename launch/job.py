"""What slurm/job.sh asks on the first node of a job: where and with whom to run, and whether to run again."""

import os
import sys
from argparse import REMAINDER
from pathlib import Path

from launch import door, noted, parser_of
from pipeline.cluster import client
from pipeline.cluster.nodes import head_address, nodes_that_fit
from pipeline.cluster.restarts import History, progress
from pipeline.config import TrainConfig, TransferConfig, load
from pipeline.progress import say

EXAMPLE = """examples, within a job:
  python -m launch.job begin 8 launch.train configs/imagenet/resnet50.yaml train.batch=1024
  python -m launch.job end 75 runs/imagenet-resnet50
"""
SCHEMAS = {"launch.train": TrainConfig, "launch.transfer": TransferConfig}


def main(argv: list[str] | None = None) -> None:
    parser = parser_of("launch.job", __doc__, EXAMPLE)
    add = parser.add_subparsers(dest="action", required=True).add_parser
    begin = add("begin", help="prints the run's folder, nodes to use, where they meet, NOTE, when time ends")
    begin.add_argument("ranks", type=int, help="of a node")
    begin.add_argument("door", choices=SCHEMAS)
    begin.add_argument("config")
    begin.add_argument("words", nargs=REMAINDER, help="section.key=value, and options for the door")
    end = add("end", help="queues the job again, if that may help; else ends with the code")
    end.add_argument("code", type=int, help="that srun ended with")
    end.add_argument("run", type=Path)
    words = parser.parse_args(argv)
    with door():
        if words.action == "begin":
            overrides = [word for word in words.words if "=" in word and not word.startswith("-")]
            begun(words.ranks, words.door, words.config, overrides)
        else:
            ended(words.code, words.run)


def begun(ranks: int, module: str, path: str, overrides: list[str]) -> None:
    """The start of a job, or its end if it has come back in vain."""
    config = load(SCHEMAS[module], path, overrides)
    nodes = client.hostnames(os.environ["SLURM_JOB_NODELIST"])
    fitting = nodes_that_fit(len(nodes), ranks, config)
    if fitting < len(nodes):
        say(f"{fitting} of {len(nodes)} nodes are used: the batch is not divisible over all of their ranks")
    history = History.read(_file(config.folder, "json"))
    vain = history.begin(progress(config.folder))
    history.write(_file(config.folder, "json"))
    if vain:
        say(f"job {_job()} ends: {vain}")
        sys.exit(1)
    _file(config.folder, "code").unlink(missing_ok=True)
    head, end = head_address(nodes, os.environ["SLURMD_NODENAME"]), client.end_time(_job())
    print(config.folder, fitting, head, _file(config.folder, "code"), end or "", sep="\n")


def ended(code: int, run: Path) -> None:
    """The end of a start: the job is queued again, or this process ends with the ranks' own code."""
    code = noted(_file(run, "code"), code)
    history = History.read(_file(run, "json"))
    again, why = history.end(code, progress(run))
    history.write(_file(run, "json"))
    # Told before: SLURM ends this process when it queues the job again.
    say(f"job {_job()}: {why}{'; it asks to be queued again' if again else ''}")
    if again and (refusal := client.requeue(_job())):
        say(f"job {_job()} is not queued again: {refusal}; the same sbatch command goes on")
    sys.exit(code)


def _job() -> str:
    """A task of an array by its own name: the array's number may be that of one of its tasks, too."""
    about = os.environ
    if "SLURM_ARRAY_TASK_ID" in about:
        return f"{about['SLURM_ARRAY_JOB_ID']}_{about['SLURM_ARRAY_TASK_ID']}"
    return about["SLURM_JOB_ID"]


def _file(run: Path, ending: str) -> Path:
    """What a job keeps between its starts; ``code`` is where its ranks leave theirs (``launch.NOTE``)."""
    return run / "slurm" / f"job-{_job()}.{ending}"


if __name__ == "__main__":
    main()
