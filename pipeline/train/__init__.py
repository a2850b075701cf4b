"""Training: `run` takes a config to a finished run; `fit` is the loop that transfer uses too."""

from pipeline.train.job import Job
from pipeline.train.loop import fit
from pipeline.train.run import dry_run, run

__all__ = ["Job", "dry_run", "fit", "run"]
