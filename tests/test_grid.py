"""Which learning rate and decay a grid chooses, trainings aside."""

import pytest

from pipeline.config import Grid, Optimizer
from pipeline.transfer.grid import choose


def chosen(best: tuple[float, float], lr: list[float], decay: list[float], **optim) -> tuple[Optimizer, dict]:
    """With scores that are highest at one pair of learning rate and weight decay."""

    def tried(how: Optimizer) -> float:
        return -abs(how.lr - best[0]) - abs(how.weight_decay - best[1])

    grid = Grid(lr=lr, decay=decay)
    return choose(grid, Optimizer(lr=1.0, **optim), 64, tried, "finetuned.grid.lr")


def test_decay_is_divided_by_the_rate_that_trains():
    how, _ = chosen((0.1, 0.01), [0.1, 0.01], [1e-3, 0.0])
    assert (how.lr, how.weight_decay) == (0.1, pytest.approx(0.01))
    how, _ = chosen((0.1, 0.005), [0.1, 0.01], [1e-3, 0.0], lr_batch=32)
    assert (how.lr, how.weight_decay) == (0.1, pytest.approx(0.005)), "64 pictures train at 0.2"


@pytest.mark.parametrize(
    ("best", "at_edge"),
    [((0.1, 0.0), False), ((0.1, 1e-2), True), ((0.1, 1e-3), False), ((0.01, 0.0), True), ((1.0, 0.0), True)],
)
def test_an_edge_is_where_something_may_lie_beyond(best, at_edge):
    """Below no decay at all there is nothing."""
    _, told = chosen(best, [0.01, 0.1, 1.0], [1e-3, 1e-4, 0.0])
    assert told["at_edge"] == at_edge
