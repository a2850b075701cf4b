"""Files that go bad after the index was made: replaced in training, left out of evaluation, never the end."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from odd_pictures import encoded, photograph

from pipeline.config import Loading, Pictures, UserError
from pipeline.data import draws
from pipeline.data.batches import Batch, evaluation_rows, training_rows
from pipeline.data.index import open_index
from pipeline.data.loader import Loader
from pipeline.data.order import Order
from pipeline.data.prepare import How, write_index
from pipeline.data.sources import Files, Source

CPU = torch.device("cpu")
PICTURES = Pictures(size=48, eval_resize=64)
N, BATCH, SEED = 60, 12, 9


@pytest.fixture
def photographs(tmp_path) -> Path:
    """The folder of an index of 60 pictures, and the pictures in ``raw`` beside it."""
    rng = np.random.default_rng(11)
    (tmp_path / "raw").mkdir()
    for number in range(N):
        picture = photograph(rng, 80 + number, 100)
        (tmp_path / "raw" / f"{number:02d}.jpg").write_bytes(encoded(picture))
    files = Files(tmp_path / "raw", [f"{number:02d}.jpg" for number in range(N)], np.arange(N) % 4)
    write_index(Source("sixty", list("abcd"), {"train": files}), tmp_path / "index")
    return tmp_path


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:700])


def to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def zeros(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def smaller(file: Path) -> None:
    """Another picture, filled up to as many bytes."""
    small = encoded(photograph(np.random.default_rng(0), 9, 9))
    file.write_bytes(small.ljust(file.stat().st_size, b"\0"))


def larger(file: Path) -> None:
    """Another picture, in which every window would be found."""
    file.write_bytes(encoded(photograph(np.random.default_rng(0), 200, 150)))


CHANGED = "changed since launch.prepare: {} bytes, the index says {}"
DAMAGE = {
    "deleted": (Path.unlink, "No such file or directory"),
    "empty": (lambda file: file.write_bytes(b""), "empty"),
    "cut off": (cut_off, CHANGED),
    "zeros": (zeros, "cannot be decoded"),
    "a web page": (lambda file: file.write_text("<html>404</html>"), CHANGED),
    "a folder": (to_folder, "Is a directory"),
    "another, smaller picture": (smaller, "cannot be decoded"),
    "another, larger picture": (larger, CHANGED),
}


def train(
    index: Path, world: int = 1, accumulate: int = 1, start: int = 0, stop: int = 15
) -> list[list[Batch]]:
    """Each step's micro-batches in the order of the global batch: three epochs in 15 steps."""
    split = open_index(index / "index").split("train")
    streams = []
    for rank in range(world):
        rows = training_rows(Order(N, BATCH, SEED), rank, world, accumulate, start, stop)
        loader = Loader(split, PICTURES, Loading(threads=1 + rank, readers=2 + rank), CPU, True)
        micro = list(loader.training(rows, BATCH // world // accumulate, SEED))
        streams.append([micro[i : i + accumulate] for i in range(0, len(micro), accumulate)])
    return [[batch for part in step for batch in part] for step in zip(*streams, strict=True)]


def images(step: list[Batch]) -> torch.Tensor:
    return torch.cat([batch.images for batch in step])


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_bad_file_is_replaced_by_another_picture_and_told(kind, photographs):
    damage, reason = DAMAGE[kind]
    healthy = train(photographs)
    bad, told = (3, 41), set()
    for number in bad:
        file = photographs / "raw" / f"{number:02d}.jpg"
        size = file.stat().st_size
        damage(file)
        told.add((number, reason.format(file.stat().st_size if file.exists() else 0, size)))
    order, seen, found = Order(N, BATCH, SEED), 0, set()
    for step, ((before,), (after,)) in enumerate(zip(healthy, train(photographs), strict=True)):
        rows, epochs = order.piece(step, 0, 1)
        same = ~np.isin(rows, bad)
        assert torch.equal(after.images[same], before.images[same]), "the others don't notice"
        assert np.array_equal(after.rows[same], rows[same])
        assert np.array_equal(after.labels.numpy(), after.rows % 4), "labels go with the pictures"
        found |= {(fault.row, fault.reason) for fault in after.faults}
        for place in np.flatnonzero(~same):
            seen += 1
            u = draws.uniform(1, rows[place : place + 1], epochs[place : place + 1], SEED, draws.REPLACE)
            assert after.rows[place] == int(u[0, 0] * N) or int(u[0, 0] * N) in bad
            assert {fault.path for fault in after.faults} <= {"03.jpg", "41.jpg"}
    assert seen == 2 * 3  # each came once in each of three epochs
    assert found == told


def test_with_bad_files_too_the_batches_are_the_same_on_any_ranks_and_after_any_restart(photographs):
    for number, (damage, _) in zip((1, 7, 22, 30, 31, 44, 52, 59), DAMAGE.values(), strict=True):
        damage(photographs / "raw" / f"{number:02d}.jpg")
    straight = train(photographs)
    pieces = train(photographs, world=2, stop=4)
    pieces += train(photographs, world=3, accumulate=2, start=4, stop=9) + train(photographs, start=9)
    for ours, theirs in zip(pieces, straight, strict=True):
        assert torch.equal(images(ours), images(theirs))
    assert sum(len(batch.faults) for step in straight for batch in step) >= 8 * 3


def test_a_damaged_shard_costs_only_its_pictures(photographs):
    split = open_index(photographs / "index").split("train")
    files = Files(photographs / "raw", [split.path(row) for row in range(N)], np.arange(N) % 4)
    write_index(Source("sixty", list("abcd"), {"train": files}), photographs / "index", How(pack=True))
    healthy, packed = train(photographs), open_index(photographs / "index").split("train")
    _, offset, size = packed.places
    with packed.files[0].open("r+b") as shard:
        shard.seek(offset[17])
        shard.write(bytes(int(size[17])))  # a block that came back as zeros
    faults = 0
    for (before,), (after,) in zip(healthy, train(photographs), strict=True):
        same = before.rows != 17
        assert torch.equal(after.images[same], before.images[same])
        faults += sum(fault.row == 17 for fault in after.faults)
    assert faults >= 3


def test_a_bad_file_weighs_nothing_in_an_evaluation(photographs):
    split = open_index(photographs / "index").split("train")
    loader = Loader(split, PICTURES, Loading(), CPU, True)
    bad_rows = (0, 15, 16, 33, 40, 47, 58, 59)
    healthy = list(loader.evaluation(evaluation_rows(N, 16, 0, 1), 16))
    for number, (damage, _) in zip(bad_rows, DAMAGE.values(), strict=True):
        damage(photographs / "raw" / f"{number:02d}.jpg")
    found = list(loader.evaluation(evaluation_rows(N, 16, 0, 1), 16))
    for before, after in zip(healthy, found, strict=True):
        bad = np.isin(before.rows, bad_rows) & (before.weight.numpy() > 0)
        counted = after.weight.numpy() > 0
        assert np.array_equal(counted, (before.weight.numpy() > 0) & ~bad)
        assert torch.equal(after.images[counted], before.images[counted])
    assert {fault.row for batch in found for fault in batch.faults} == set(bad_rows)


def test_what_fills_up_an_evaluation_may_be_bad_on_any_rank(photographs):
    """The last ranks' last batches are row 0 again and again: none of their pictures can be decoded."""
    split = open_index(photographs / "index").split("train")
    file = photographs / "raw" / "00.jpg"
    file.write_bytes(bytes(file.stat().st_size))
    for rank in range(4):
        loader = Loader(split, PICTURES, Loading(), CPU, True)
        for batch in loader.evaluation(evaluation_rows(N, 24, rank, 4), 24):
            places = np.arange(24) + 24 * rank
            assert np.array_equal(batch.weight.numpy() > 0, (places > 0) & (places < N))
            assert {fault.row for fault in batch.faults} <= {0}


def test_when_all_is_gone_it_says_so_at_once(photographs):
    for file in (photographs / "raw").iterdir():
        file.unlink()
    with pytest.raises(
        UserError, match=r"16 pictures drawn .* No such file or directory; is the file system"
    ):
        train(photographs)


def test_threads_and_open_files_end_with_the_pass(photographs):
    """Also of a pass that is left in the middle, and of one that mended itself."""
    zeros(photographs / "raw" / "05.jpg")

    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    split = open_index(photographs / "index").split("train")
    loader = Loader(split, PICTURES, Loading(), CPU, True)
    counts = []
    for _ in range(6):
        stream = loader.training(training_rows(Order(N, BATCH, SEED), 0, 1, 1, 0, 100), BATCH, SEED)
        for _ in range(7):
            next(stream)
        stream.close()
        counts.append(held())
    assert counts[-1] == counts[1]


def test_memory_is_flat_over_fifty_epochs(photographs):
    """With a bad file among them, whose batches are made twice."""
    zeros(photographs / "raw" / "05.jpg")

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    split = open_index(photographs / "index").split("train")
    loader = Loader(split, PICTURES, Loading(), CPU, True)
    rows = training_rows(Order(N, BATCH, SEED), 0, 1, 1, 0, 50 * N // BATCH)
    found = []
    for step, _ in enumerate(loader.training(rows, BATCH, SEED)):
        if (step + 1) % (N // BATCH) == 0:
            found.append(resident())
    assert len(found) == 50
    assert np.mean(found[-10:]) - np.mean(found[5:15]) < 5, "MB"
