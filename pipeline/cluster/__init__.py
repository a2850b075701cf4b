"""SLURM: what is submitted (submission, script), what a job asks on its nodes (nodes, restarts), and where
a run stands (status)."""
