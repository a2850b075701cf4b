"""Run by tests/test_prepare.py: gives an index many rows, or opens it and tells what that cost."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.data.index import open_index, schema


def write(folder: Path, n: int) -> None:
    fields, numbers = schema(1000, False), np.arange(n)
    columns = {
        "path": [f"train/n{i % 1000:08d}/n{i:08d}.JPEG" for i in range(n)],
        "file": np.full(n, -1),
        "offset": np.zeros(n),
        "bytes": np.full(n, 110_000),
        "height": np.full(n, 375),
        "width": np.full(n, 500),
        "digest": [None] * n,
        "label": numbers % 1000,
    }
    arrays = [pa.array(columns[field.name], field.type, safe=False) for field in fields]
    with pa.OSFile(str(folder / "train.arrow"), "wb") as file, pa.ipc.new_file(file, fields) as writer:
        writer.write_table(pa.table(arrays, schema=fields), max_chunksize=n)
    about = json.loads((folder / "index.json").read_text())
    about["splits"]["train"] |= {"rows": n, "files": [], "decoded": False}
    (folder / "index.json").write_text(json.dumps(about))


def private_megabytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) // 1024


def open_and_tell(folder: Path, n: int) -> None:
    before, start = private_megabytes(), time.perf_counter()
    split = open_index(folder).split("train")
    assert split.heights[::1000].sum() == 375 * n // 1000
    assert split.labels[::997].max() < 1000
    print(time.perf_counter() - start, private_megabytes() - before, split.path(n - 1))


if __name__ == "__main__":
    {"write": write, "open": open_and_tell}[sys.argv[3]](Path(sys.argv[1]), int(sys.argv[2]))
