"""The frozen probe: its optimum against closed forms and independent solvers, and the choice of lambda."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pipeline.config import UserError
from pipeline.transfer import probe as module
from pipeline.transfer.probe import LAMBDAS, Probe, choose, fit, probe

# scikit-learn deprecates quickly; none of its warnings, nor one of ours, may pass unseen.
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def one_thread():
    """Matrices this small are slower on several threads."""
    with threadpool_limits(1):
        yield


def make(pictures, width, classes, seed=0, noise=1.0):
    """(N, D) float32 features as a network gives them, non-negative with a mean, and (N,) labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(pictures) % classes)
    centres = rng.normal(size=(classes, width))
    features = np.maximum(0.5 + centres[labels] * 0.3 + noise * rng.normal(size=(pictures, width)) * 0.5, 0)
    return features.astype(np.float32), labels


def objective(weight, bias, features, labels, lam):
    """F and its gradient (classes, D + 1), as the protocol writes it; shares no code with the probe."""
    features = features.astype(np.float64)
    logs = log_softmax(features @ weight.T + bias, axis=1)
    error = np.exp(logs) - np.eye(len(bias))[labels]
    value = -logs[np.arange(len(labels)), labels].sum() + lam * (weight**2).sum()
    return value, np.column_stack([error.T @ features + 2 * lam * weight, error.sum(axis=0)])


def independent(features, labels, lam, classes):
    """F's minimum by scipy on the written objective, in float64, on standardised features for conditioning."""
    shape = (classes, features.shape[1] + 1)
    centre = features.astype(np.float64).mean(axis=0)

    def flat(parameters):
        weight, bias = parameters.reshape(shape)[:, :-1], parameters.reshape(shape)[:, -1]
        value, slope = objective(weight, bias, features - centre, labels, lam)
        return value, slope.ravel()

    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-12, "maxcor": 30}
    return minimize(flat, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options).fun


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("pictures", [20, 60])  # fewer and more than the 24 features
@pytest.mark.parametrize("lam", [1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e5])
def test_optimum_is_the_independent_solvers(classes, pictures, lam):
    features, labels = make(pictures, 24, classes)
    found = fit(features, labels, lam, classes)
    value, _ = objective(found.weight, found.bias, features, labels, lam)
    assert value == pytest.approx(independent(features, labels, lam, classes), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("margin", [0.1, 1.0, 4.0, 10.0])
def test_closed_form_on_one_feature_a_class(classes, margin):
    """x_i = unit vector of its class: by symmetry W = a (I - 1/K), b = 0, the margin between logits is a, and
    dF/da = 0 gives lambda = n K exp(-a) / (2 a (1 + (K - 1) exp(-a))) / (K (K - 1)) * (K - 1), n a class."""
    each = 5
    labels = np.repeat(np.arange(classes), each)
    decay = np.exp(-margin)
    lam = each * classes * decay / (2 * margin * (1 + (classes - 1) * decay))
    found = fit(np.eye(classes)[labels], labels, lam, classes)
    assert found.weight == pytest.approx(margin * (np.eye(classes) - 1 / classes), abs=1e-5 * margin)
    assert found.bias == pytest.approx(np.zeros(classes), abs=1e-5 * margin)


@pytest.mark.parametrize("classes", [2, 4])
def test_strongest_penalty_leaves_the_class_frequencies(classes):
    """lambda to infinity: W to 0, and the bias alone predicts each class's share."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 5 * np.arange(1, classes + 1))
    found = fit(rng.normal(size=(len(labels), 3)), labels, 1e9, classes)
    assert np.abs(found.weight).max() < 1e-6
    shares = np.bincount(labels) / len(labels)
    assert np.exp(log_softmax(found.bias)) == pytest.approx(shares, abs=1e-6)


@pytest.mark.parametrize("lam", [1e-3, 0.3, 20.0])
def test_grid_is_of_lambda_and_not_inverted(lam):
    """C = 1 / (2 lambda). ssl-transfer's 1 / lambda and DINOv2's grid over C itself are other solutions."""
    features, labels = make(60, 8, 3)
    found = fit(features, labels, lam, 3)

    def distance(inverse):
        other = LogisticRegression(C=inverse, tol=1e-10, max_iter=10_000).fit(features.astype(float), labels)
        return np.abs(other.coef_ - found.weight).max() / np.abs(other.coef_).max()

    assert distance(1 / (2 * lam)) < 1e-4
    assert distance(1 / lam) > 0.02
    assert distance(lam) > 0.02


def test_all_lambdas_against_scikit_learn_fitted_one_by_one():
    """Cold, on the features as they are: ours is never above scikit-learn's F, nor apart from its tight one."""
    features, labels = make(80, 16, 4)
    inputs = features.astype(np.float64)
    for lam in LAMBDAS:
        found = fit(features, labels, lam, 4)
        value, _ = objective(found.weight, found.bias, features, labels, lam)
        default = LogisticRegression(C=1 / (2 * lam), max_iter=10_000).fit(inputs, labels)
        tight = LogisticRegression(C=1 / (2 * lam), max_iter=10_000, tol=1e-12).fit(inputs, labels)
        assert value <= objective(default.coef_, default.intercept_, features, labels, lam)[0] * (1 + 1e-9)
        assert value == pytest.approx(
            objective(tight.coef_, tight.intercept_, features, labels, lam)[0], rel=1e-6
        )


@pytest.mark.parametrize(("pictures", "width", "classes"), [(60, 200, 4), (200, 10, 4), (80, 16, 2)])
def test_gradient_vanishes_along_the_whole_path(pictures, width, classes):
    """||gradient||^2 / (4 lambda) bounds how far F is above its minimum (strong convexity): below 1e-5 of F."""
    features, labels = make(pictures, width, classes, noise=2.0)
    problem = module._Problem(features, labels, classes, module.MAX_ITERATIONS)
    for lam in LAMBDAS[::-1]:
        found, converged = problem.solve(lam)
        value, slope = objective(found.weight, found.bias, features - problem.mean, labels, lam)
        # In centred features the bias differs by W @ mean.
        value, slope = objective(
            found.weight, found.bias + found.weight @ problem.mean, features - problem.mean, labels, lam
        )
        assert converged
        assert (slope**2).sum() / (4 * lam) < 1e-5 * value, lam
        assert np.abs(slope).max() < 1e-4 * pictures, lam


def test_features_on_wildly_different_scales():
    """Columns from 1e-3 to 1e3; scikit-learn's Newton solver, which no scaling disturbs, has the same optimum."""
    features, labels = make(150, 7, 3, noise=2.0)
    features = features.astype(np.float64) * np.logspace(-3, 3, 7)
    for lam in (1e-4, 1e-2, 1.0, 1e2):
        found = fit(features, labels, lam, 3)
        newton = LogisticRegression(C=1 / (2 * lam), solver="newton-cholesky", tol=1e-10, max_iter=500)
        newton.fit(features - features.mean(axis=0), labels)
        want, _ = objective(newton.coef_, newton.intercept_, features - features.mean(axis=0), labels, lam)
        assert objective(found.weight, found.bias, features, labels, lam)[0] == pytest.approx(want, rel=1e-6)


problems = st.tuples(st.integers(0, 1000), st.integers(2, 4), st.sampled_from([6, 40]), st.floats(-3, 3))


@given(problems, st.floats(0.01, 100), st.floats(-10, 10))
@settings(deadline=None, max_examples=20)
def test_optimum_moves_with_the_features(problem, scale, shift):
    """x * s + t has the same logits at lambda * s^2: the bias is free and the penalty is in W's units."""
    seed, classes, width, power = problem
    features, labels = make(30, width, classes, seed)
    features = features.astype(np.float64)
    one = fit(features, labels, 10**power, classes)
    other = fit(features * scale + shift, labels, 10**power * scale**2, classes)
    logits = one.logits(features)
    assert other.logits(features * scale + shift) == pytest.approx(logits, abs=1e-3 * np.ptp(logits) + 1e-9)


@given(problems)
@settings(deadline=None, max_examples=15)
def test_weaker_penalty_means_larger_weights_and_lower_loss(problem):
    """Along the path ||W|| falls and the cross-entropy rises with lambda: true of any penalised minimum."""
    seed, classes, width, power = problem
    features, labels = make(30, width, classes, seed)
    norms, losses = [], []
    for lam in 10**power * np.logspace(-2, 2, 9):
        found = fit(features, labels, lam, classes)
        norms.append((found.weight**2).sum())
        losses.append(objective(found.weight, found.bias, features, labels, 0.0)[0])
    assert (np.diff(norms) < 0).all()
    assert (np.diff(losses) > 0).all()


@pytest.mark.parametrize("classes", [2, 4])
def test_renaming_classes_renames_the_rows(classes):
    features, labels = make(50, 6, classes)
    names = np.roll(np.arange(classes), 1)
    one, other = fit(features, labels, 0.1, classes), fit(features, names[labels], 0.1, classes)
    assert other.weight[names] == pytest.approx(one.weight, rel=1e-4, abs=1e-6)
    assert other.bias[names] == pytest.approx(one.bias, rel=1e-4, abs=1e-6)


def test_two_equal_features_share_the_weight_and_a_constant_one_has_none():
    features, labels = make(50, 3, 3)
    features[:, 1] = features[:, 0]
    features[:, 2] = 7.0
    found = fit(features, labels, 0.1, 3)
    assert found.weight[:, 1] == pytest.approx(found.weight[:, 0])
    assert np.abs(found.weight[:, 2]).max() < 1e-12


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_features_that_say_nothing(value):
    """All pictures alike (a dead network): the frequencies are all there is to predict."""
    labels = np.array([0, 1, 1, 1, 2])
    features = np.full((5, 4), value, np.float32)
    found = fit(features, labels, 1e-6, 3)
    assert np.exp(log_softmax(found.logits(features), axis=1))[0] == pytest.approx([0.2, 0.6, 0.2], abs=1e-6)


@pytest.fixture(scope="module")
def searched():
    """A problem with room for a mistake: (features, labels, train_rows, val_rows)."""
    features, labels = make(160, 20, 4, seed=3, noise=2.2)
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
    assert len(level) > 1  # the case has a tie to break
    assert choice.val_accuracy == best
    assert choice.lam == min(level, key=lambda point: point[2])[0]
    assert not choice.at_edge
    assert choice.unconverged == []
    assert min(top1 for _, top1, _ in choice.path) < best - 0.1  # lambda matters here


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
    with pytest.warns(ConvergenceWarning, match=r"lambda 0\.001 stopped at 3 iterations"):
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
    assert choice.val_accuracy == max(point[1] for point in choice.path)
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


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_any_float_is_solved_in_float64(kind):
    features, labels = make(60, 8, 3)
    features = features.astype(np.float16)  # exact in all three
    found, want = (
        fit(features.astype(kind), labels, 1e-4, 3),
        fit(features.astype(np.float64), labels, 1e-4, 3),
    )
    assert found.weight.dtype == found.bias.dtype == np.float64
    assert np.array_equal(found.weight, want.weight)
    assert np.array_equal(found.logits(features.astype(kind)), want.logits(features.astype(np.float64)))


def test_logits_in_pieces_are_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    linear = Probe(rng.normal(size=(3, 5)), rng.normal(size=3))
    features = rng.normal(size=(23, 5)).astype(np.float32)
    whole = features.astype(np.float64) @ linear.weight.T + linear.bias
    monkeypatch.setattr(module, "_ROWS", 7)
    assert linear.logits(features) == pytest.approx(whole, rel=1e-12)
    assert np.array_equal(linear.predict(features), whole.argmax(axis=1))
    assert linear.logits(features[:0]).shape == (0, 3)


def test_fitting_leaves_the_features_alone():
    features, labels = make(30, 40, 3)
    features = features.astype(np.float64)
    before = features.copy()
    fit(features, labels, 1.0, 3)
    assert np.array_equal(features, before)


def test_margin_of_two_opposite_pictures():
    """x = +-1, two classes, W = (-u, u): F = N log(1 + exp(-2 u)) + 2 lambda u^2, solved by a root finder."""
    features, labels = np.array([[-1.0], [1.0]] * 10), np.array([0, 1] * 10)
    for lam in LAMBDAS[::11]:
        root = brentq(lambda u, lam=lam: 4 * lam * u - 2 * 20 / (1 + np.exp(2 * u)), 0, 100, xtol=1e-15)
        found = fit(features, labels, lam, 2)
        assert found.weight.ravel() == pytest.approx([-root, root], rel=1e-4)
