"""Writes rows to W&B as training does, in a process of its own: FOLDER FIRST LAST [SECONDS].

With SECONDS the end comes when a line is read, and may take so long.
"""

import sys
from pathlib import Path

from pipeline.monitor import wandb_run
from pipeline.monitor.codebase import code_state

if __name__ == "__main__":
    folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    run = wandb_run.WandbRun(folder, "quick", "convnets", {"seed": 3}, code_state(), None)
    for step in range(first, last + 1):
        row = {"time": 0.0, "step": step, "epoch": step / 10, "split": "train", "loss": 1 / step, "top1": 0.5}
        run.write(row | ({"loss": None, "note": "a skipped step"} if step == 2 else {}))
    looked = {"norm": [0.5, 2.0], "update_ratio": [0.001, None], "snr": [None, float("nan")]}
    run.write({"step": last, "epoch": 1.0, "split": "gradients", "layers": ["conv1", "fc"], **looked})
    print("written", flush=True)
    if sys.argv[4:]:
        wandb_run.END_WITHIN = float(sys.argv[4])
        sys.stdin.readline()
    run.end(last)
    run.close()
    print("closed", flush=True)
