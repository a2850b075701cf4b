"""Where a run stands: what its folder says, and what SLURM says of its jobs."""

import time
from pathlib import Path

from pipeline.claim import in_use
from pipeline.cluster import client, record
from pipeline.cluster.restarts import saved_step
from pipeline.config import TrainConfig, UserError, load
from pipeline.monitor.metrics import read_rows, told_loss
from pipeline.train.plan import steps_of


def status(run: Path) -> list[str]:
    """Lines for a person.

    :raises UserError: there is no such run.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such run; give its folder, as runs/demo")
    lines = [*_training(run), *_transfers(run)]
    return (
        [f"{run}: {lines[0]}", *lines[1:], *_jobs(run)]
        if lines
        else [f"{run}: nothing done yet", *_jobs(run)]
    )


def _training(run: Path) -> list[str]:
    """How far the training is, how well it does, and since when that is safe."""
    lines = []
    rows = read_rows(run / "metrics.jsonl") if (run / "metrics.jsonl").exists() else []
    trained = [row for row in rows if row["split"] == "train"]
    if trained:
        last = trained[-1]
        config = load(TrainConfig, run / "config.yaml")
        an_epoch = last["step"] / last["epoch"]  # steps
        steps = max(last["step"], steps_of(config.train, round(an_epoch * config.train.batch)))
        lines.append(
            f"step {last['step']:,} of {steps:,}, epoch {last['epoch']:.2f} of "
            f"{config.train.epochs or steps / an_epoch:.4g}, loss {told_loss(last)}, "
            f"{last['images_per_s']:,.0f} pictures/s, {_ago(last['time'])}"
        )
    seen = {row["split"]: row for row in rows if row["split"] in ("val", "test")}
    lines += [f"{split} top-1 {row['top1']:.1%} at step {row['step']:,}" for split, row in seen.items()]
    if step := saved_step(run):
        # The file's time, not the folder's: a save that fails leaves its mark there too.
        saved = (run / "checkpoints" / f"step_{step:08d}.pt").stat().st_mtime
        lines.append(f"saved: step {step:,}, {_ago(saved)}")
    return lines


def _transfers(run: Path) -> list[str]:
    done = sorted(file.stem for file in run.glob("transfer/*.json"))
    return [f"transferred: {', '.join(done)}"] if done else []


def _jobs(run: Path) -> list[str]:
    """Of those that wait or run; of none, how the last one is looked up."""
    entries = record.read(run)
    lines = []
    for entry in entries:
        try:
            live = client.queued([entry["job"]])
        except UserError as error:
            lines.append(str(error))
            break
        for job in live:
            again = int(client.shown("job", job.id).get("Restarts", 0))
            lines.append(
                f"job {job.id} {entry['what']}: {job.state} ({job.where}), for {job.elapsed}, {job.left} left"
                + (f", started again {again} times" if again else "")
            )
    if not lines and in_use(run):
        lines.append("a job works in this folder, but it was not submitted from here")
    elif not lines and entries:
        lines.append(f"no job of it waits or runs; the last was {entries[-1]['job']} ({entries[-1]['what']})")
    if logs := _logs(run, entries):
        lines.append(f"log: {max(logs, key=lambda file: file.stat().st_mtime)}")
    return lines


def _logs(run: Path, entries: list[dict]) -> list[Path]:
    """An array's logs lie beside its script, in the folder that is named after the recipe."""
    shared = []
    for entry in entries:
        script = Path(entry["command"][1])
        shared.append(run.parent / script.parent.parent.name / "slurm" / f"{entry['job']}.log")
    return [*(run / "slurm").glob("*.log"), *(log for log in shared if log.exists())]


def _ago(then: float) -> str:
    seconds = max(0, int(time.time() - then))
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
