"""What a step was fed, as a number: the same on any ranks and after any restart, else another one."""

import json

import numpy as np
import pytest
import torch
from conftest import door
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Loading, Pictures
from pipeline.data.batches import training_rows
from pipeline.data.index import open_index
from pipeline.data.loader import Loader
from pipeline.data.order import Order
from pipeline.data.receipt import WRAP, receipt

PICTURES = Pictures(size=32, crop="pad", eval_resize=None, augment={"erase": 0.3})
BATCH, STEPS = 24, 6


@st.composite
def batches(draw):
    """A step's rows, epochs, windows and mirrors."""
    size = draw(st.integers(2, 20))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, epochs = numbers.integers(0, 10**6, size), numbers.integers(0, 100, size)
    return rows, epochs, [numbers.integers(-9, 500, (size, 2)), numbers.random(size).astype(np.float32)]


@given(batches(), st.data())
def test_a_steps_is_the_sum_of_its_pieces_and_another_picture_place_or_crop_changes_it(batch, data):
    rows, epochs, told = batch
    whole = receipt(0, rows, epochs, told)
    cut = data.draw(st.integers(1, len(rows) - 1))
    parts = [(0, slice(0, cut)), (cut, slice(cut, None))]
    pieces = [receipt(first, rows[p], epochs[p], [each[p] for each in told]) for first, p in parts]
    assert sum(pieces) % WRAP == whole < WRAP
    place = data.draw(st.integers(0, len(rows) - 1))

    def changed(array: np.ndarray) -> np.ndarray:
        other = array.copy()
        other[place] += 1
        return other

    other = rows.copy()
    other[[0, -1]] = other[[-1, 0]]
    others = [
        receipt(0, changed(rows), epochs, told),
        receipt(0, rows, changed(epochs), told),
        receipt(0, rows, epochs, [changed(told[0]), told[1]]),
        receipt(0, rows, epochs, [told[0], changed(told[1])]),
        receipt(1, rows, epochs, told),
    ]
    if rows[0] != rows[-1]:
        others.append(receipt(0, other, epochs, told))
    assert whole not in others


def receipts(index, seed: int, world: int = 1, accumulate: int = 1, start: int = 0) -> list[int]:
    """Of each step from ``start`` on."""
    split = open_index(index).split("train")
    loader, steps = Loader(split, PICTURES, Loading(threads=1), torch.device("cpu"), True), STEPS - start
    found, order = np.zeros(steps, object), Order(len(split), BATCH, seed)
    for rank in range(world):
        rows = training_rows(order, rank, world, accumulate, start, STEPS)
        seen = [each.receipt for each in loader.training(rows, BATCH // world // accumulate, seed)]
        found += np.array(seen, object).reshape(steps, accumulate).sum(axis=1)
    return [each % WRAP for each in found]


def test_it_is_the_same_on_any_ranks_and_after_a_restart_and_another_seeds_is_not(small_index):
    alone = receipts(small_index, 0)
    assert len(set(alone)) == STEPS
    assert receipts(small_index, 0, world=2) == alone
    assert receipts(small_index, 0, world=3, accumulate=2) == alone
    assert receipts(small_index, 0, start=4) == alone[4:]
    assert not set(receipts(small_index, 1)) & set(alone)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "a and b: the same pictures in the same order, cut and changed alike, in all 3 steps up to 60"),
        ({40: "9" * 16}, "a and b: other pictures, or cut otherwise, in 1 of 3 steps up to 60 of which both"),
    ],
)
def test_a_report_of_two_runs_says_whether_they_saw_the_same(tmp_path, changed, told):
    kept = {step: f"{step:016x}" for step in (20, 40, 60)}
    other = {step: "1" * 16 for step in kept}
    runs = {"old": {}, "a": kept, "b": kept | {80: "0" * 16} | changed, "seed1": other}
    for name, numbers in runs.items():
        (tmp_path / name).mkdir()
        rows = [
            {"time": step, "step": step, "epoch": step / 100, "split": "train", "loss": 1.0, "top1": 0.5}
            | ({"receipt": numbers[step]} if numbers else {})
            for step in (numbers or kept)
        ]
        (tmp_path / name / "config.yaml").write_text(f"name: {name}\nseed: {int(name == 'seed1')}\n")
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = door("launch.report", *(str(tmp_path / name) for name in runs))
    assert found.returncode == 0, found.stderr
    lines = [line for line in found.stdout.splitlines() if " and " in line]
    assert [line.startswith(told) for line in lines] == [True]
