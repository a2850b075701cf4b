"""The order of pictures: a permutation, the same for any number of ranks, and looked up rather than kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.config import UserError
from pipeline.data.batches import evaluation_rows, training_rows
from pipeline.data.order import Order, permute, share


@settings(max_examples=150)
@given(n=st.integers(1, 5000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6))
def test_an_epoch_is_a_permutation(n, seed, epoch):
    found = permute(np.arange(n), n, seed, epoch)
    assert np.array_equal(np.sort(found), np.arange(n))


@settings(max_examples=30)
@given(n=st.integers(10**8, 2 * 10**9), seed=st.integers(0, 2**63 - 1), start=st.integers(0, 10**8 - 1000))
def test_billions_of_positions_without_memory(n, seed, start):
    found = permute(np.arange(start, start + 1000), n, seed, 3)
    assert len(np.unique(found)) == 1000
    assert found.min() >= 0
    assert found.max() < n


@given(n=st.integers(2, 10**6), data=st.data())
def test_a_position_is_computed_on_its_own(n, data):
    positions = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)))
    together = permute(positions, n, 7, 1)
    alone = [permute(np.array([position]), n, 7, 1)[0] for position in positions]
    assert together.tolist() == alone


def test_pictures_fall_uniformly_on_places():
    """Over many epochs every picture stands at every place equally often, and pairs are independent."""
    n, epochs = 16, 8000
    found = np.stack([permute(np.arange(n), n, 11, epoch) for epoch in range(epochs)])
    counts = np.stack([np.bincount(found[:, place], minlength=n) for place in range(n)])
    assert stats.chisquare(counts.ravel()).pvalue > 1e-4
    pairs = np.bincount(found[:, 0] * n + found[:, 1], minlength=n * n).reshape(n, n)
    assert np.diag(pairs).sum() == 0
    assert stats.chisquare(pairs[~np.eye(n, dtype=bool)]).pvalue > 1e-4


def test_neighbouring_seeds_and_epochs_are_unrelated():
    n = 10_000
    base = permute(np.arange(n), n, 0, 0)
    for seed, epoch in ((1, 0), (0, 1), (2**40, 0)):
        other = permute(np.arange(n), n, seed, epoch)
        assert (other == base).sum() < 12  # 1 expected
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.05


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_ranks_together_see_the_global_batch_in_order(world, accumulate):
    order, steps = Order(n=1000, batch=96, seed=5), 25  # crosses from one epoch into the next
    streams = [list(training_rows(order, rank, world, accumulate, 0, steps)) for rank in range(world)]
    for step in range(steps):
        micro = slice(step * accumulate, (step + 1) * accumulate)
        rows = np.concatenate([each.rows for stream in streams for each in stream[micro]])
        epochs = np.concatenate([each.epochs for stream in streams for each in stream[micro]])
        expected_rows, expected_epochs = order.at(np.arange(step * 96, (step + 1) * 96))
        assert np.array_equal(rows, expected_rows)
        assert np.array_equal(epochs, expected_epochs)


def test_every_epoch_of_the_stream_holds_every_picture_once():
    order = Order(n=1000, batch=96, seed=5)
    rows, epochs = order.at(np.arange(3000))
    for epoch in range(3):
        assert np.array_equal(np.sort(rows[epochs == epoch]), np.arange(1000))
    assert not np.array_equal(rows[:1000], rows[1000:2000])


@given(st.sampled_from([1, 2, 3, 4, 6, 8]), st.sampled_from([1, 2, 3, 4, 6, 8]), st.integers(0, 40))
def test_resuming_at_another_world_size_changes_nothing(before, after, at):
    order = Order(n=500, batch=48, seed=9)

    def seen(world: int, start: int, stop: int) -> list[int]:
        streams = [training_rows(order, rank, world, 1, start, stop) for rank in range(world)]
        return [int(row) for step in zip(*streams, strict=True) for each in step for row in each.rows]

    undisturbed = seen(1, 0, 50)
    assert seen(before, 0, at) + seen(after, at, 50) == undisturbed


@given(n=st.integers(1, 300), batch=st.integers(1, 40), world=st.integers(1, 8))
def test_evaluation_takes_every_picture_once_in_equal_batches(n, batch, world):
    streams = [list(evaluation_rows(n, batch, rank, world)) for rank in range(world)]
    assert len({len(stream) for stream in streams}) == 1
    assert all(len(each.rows) == batch for stream in streams for each in stream)
    counted = np.concatenate([each.rows[each.weight > 0] for stream in streams for each in stream])
    assert np.array_equal(np.sort(counted), np.arange(n))


def test_a_batch_that_ranks_cannot_split_names_the_nearest_that_they_can():
    assert share(96, 4, 3) == 8
    with pytest.raises(UserError, match=r"train\.batch: 100 .* 3 ranks x 4 .*: 96 or 108"):
        share(100, 3, 4)
