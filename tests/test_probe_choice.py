"""The frozen probe: how lambda is chosen, what is refitted, and which mistakes are named."""

import warnings

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from pipeline.config import UserError
from pipeline.transfer.probe import LAMBDAS, choose, fit, probe

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def one_thread():
    """Matrices this small are slower on several threads."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def searched():
    """A problem with room for a mistake: (features, labels, train_rows, val_rows)."""
    rng = np.random.default_rng(2)
    labels = rng.permutation(np.arange(160) % 4)
    centres = rng.normal(size=(4, 20))
    features = np.maximum(0.5 + centres[labels] * 0.3 + rng.normal(size=(160, 20)) * 0.8, 0)
    features = features.astype(np.float32)
    return features, labels, np.arange(0, 120), np.arange(120, 160)


def test_path_is_that_of_separate_cold_fits_and_the_choice_its_best(searched):
    features, labels, train, val = searched
    choice = choose(*searched, classes=4)
    assert [point[0] for point in choice.path] == LAMBDAS.tolist()
    for lam, top1, loss in choice.path[::4]:
        cold = fit(features[train], labels[train], lam, 4)
        logs = log_softmax(cold.logits(features[val]), axis=1)
        assert top1 == np.mean(cold.predict(features[val]) == labels[val])
        assert loss == pytest.approx(-logs[np.arange(40), labels[val]].mean(), rel=1e-3)
    best = max(point[1] for point in choice.path)
    level = [point for point in choice.path if point[1] == best]
    assert level[0][0] < choice.lam < level[-1][0]  # the case has a tie to break, by loss alone
    assert choice.val_score == best
    assert choice.lam == min(level, key=lambda point: point[2])[0]
    assert not choice.at_edge
    assert choice.unconverged == []
    assert min(top1 for _, top1, _ in choice.path) < best - 0.1  # lambda matters here


def test_chosen_by_loss_it_is_the_lowest_cross_entropy(searched):
    """Where another lambda has the highest top-1."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = rng.normal(size=(60, 10)) + 0.5 * rng.normal(size=(3, 10))[labels]
    for how in ("full", "halving"):
        choice = choose(features, labels, np.arange(40), np.arange(40, 60), classes=3, by="loss", search=how)
        lowest = min(choice.path, key=lambda point: point[2])
        assert lowest[1] < max(top1 for _, top1, _ in choice.path)
        assert choice.lam == lowest[0]
        assert choice.val_score == lowest[1]
    choice = choose(*searched, classes=4, by="loss")
    found, same = probe(*searched, classes=4, by="loss")
    assert same.lam == choice.lam
    assert np.array_equal(found.weight, fit(*searched[:2], choice.lam, 4).weight)


def test_rows_outside_both_sets_are_never_looked_at(searched):
    features, labels, train, val = searched
    more = np.concatenate([features, np.full((5, 20), np.nan, np.float32)])
    more_labels = np.concatenate([labels, np.full(5, 99)])
    assert choose(more, more_labels, train, val, classes=4) == choose(*searched, classes=4)


def test_probe_refits_on_training_and_validation(searched):
    features, labels, train, val = searched
    found, choice = probe(*searched, classes=4)
    want = fit(features, labels, choice.lam, 4)
    assert np.array_equal(found.weight, want.weight)
    assert np.array_equal(found.bias, want.bias)
    assert not np.allclose(found.weight, fit(features[train], labels[train], choice.lam, 4).weight, rtol=0.01)
    assert probe(features, labels, val, train, [choice.lam], classes=4)[0].weight == pytest.approx(
        found.weight
    )


def test_best_lambda_at_the_grids_edge_warns(searched):
    inner = choose(*searched, classes=4).lam
    for grid in (inner * np.array([1, 1e2, 1e4]), inner * np.array([1e-6, 1e-4, 1])):
        with pytest.warns(UserWarning, match="at the edge of the grid"):
            choice = choose(*searched, grid, classes=4)
        assert choice.at_edge
        assert choice.lam == inner
    assert not choose(*searched, [inner], classes=4).at_edge  # one lambda is a decision, not a grid


def test_solver_that_stops_short_says_so(searched):
    features, labels, train, _ = searched
    with pytest.warns(ConvergenceWarning, match=r"lambda 0\.001 .*limit: 3 iterations"):
        fit(features[train], labels[train], 1e-3, 4, max_iterations=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        choice = choose(*searched, [1e-4, 1e-3, 1e9], classes=4, max_iterations=3)
    assert choice.unconverged == [1e-4, 1e-3]
    assert {warning.category for warning in caught} <= {ConvergenceWarning, UserWarning}
    assert any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def test_validation_may_lack_a_class(searched):
    features, labels, train, val = searched
    some = val[labels[val] != 2]
    choice = choose(features, labels, train, some, classes=4)
    assert choice.val_score == max(point[1] for point in choice.path)
    assert all(np.isfinite(point).all() for point in choice.path)


def test_training_must_have_every_class(searched):
    features, labels, train, val = searched
    with pytest.raises(UserError, match="class 2 has no training picture"):
        choose(features, labels, train[labels[train] != 2], val, classes=4)
    with pytest.raises(UserError, match="class 4 has no training picture"):
        fit(features, labels, 1.0, 5)


def test_mistakes_are_named(searched):
    features, labels, train, val = searched
    with pytest.raises(UserError, match=r"label 3 is outside 0\.\.2"):
        fit(features, labels, 1.0, 3)
    for lam in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(UserError, match="lambda="):
            fit(features, labels, lam, 4)
    broken = features.copy()
    broken[17, 3] = np.nan
    with pytest.raises(UserError, match="row 17 are not finite"):
        fit(broken, labels, 1.0, 4)
    with pytest.raises(UserError, match="at least 2"):
        fit(features, np.zeros(160, int), 1.0, 1)
    with pytest.raises(UserError, match="no validation picture"):
        choose(features, labels, train, val[:0], classes=4)
    with pytest.raises(UserError, match="lambdas is empty"):
        choose(features, labels, train, val, [], classes=4)
    with pytest.raises(AssertionError, match="both trained on and validated on"):
        choose(features, labels, train, train[:5], classes=4)
