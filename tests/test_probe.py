"""The frozen probe: its optimum against closed forms and independent solvers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pipeline.transfer.probe import LAMBDAS, Probe, fit
from pipeline.transfer.probe.choice import EXACT, MAX_ITERATIONS
from pipeline.transfer.probe.problem import Problem

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
    """F's minimum by scipy on the written objective, in float64, from zero, on centred features."""
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


@pytest.mark.parametrize("pictures", [20, 60])
@pytest.mark.parametrize("lam", [1e-6, 1e-3, 1.0, 1e3])
def test_products_in_float32_lead_to_the_same_optimum(pictures, lam, monkeypatch):
    """As large problems are solved."""
    monkeypatch.setattr("pipeline.transfer.probe.problem._SMALL", 0)
    features, labels = make(pictures, 24, 3)
    found = fit(features, labels, lam, 3)
    value, _ = objective(found.weight, found.bias, features, labels, lam)
    assert value == pytest.approx(independent(features, labels, lam, 3), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("margin", [0.1, 1.0, 4.0, 10.0])
def test_closed_form_on_one_feature_a_class(classes, margin):
    """x_i = the unit vector of its class, n pictures each: by symmetry W = a (I - 1/K) and b = 0, so

    F = n K log(1 + (K - 1) exp(-a)) + lambda a^2 (K - 1), whose minimum lies at a where
    lambda = n K exp(-a) / (2 a (1 + (K - 1) exp(-a))).
    """
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
    """Cold, on the features as they are: ours is never above its default F, nor apart from its tight one."""
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
    """||gradient||^2 / (4 lambda) bounds F above its minimum (strong convexity in W): below 1e-5 of F."""
    features, labels = make(pictures, width, classes, noise=2.0)
    problem = Problem(features, labels, classes)
    mean = features.astype(np.float64).mean(axis=0)
    for lam in LAMBDAS[::-1]:
        found, converged, _ = problem.solve(lam, EXACT, MAX_ITERATIONS)
        # In centred features the bias differs by W @ mean.
        bias = found.bias + found.weight @ mean
        value, slope = objective(found.weight, bias, features - mean, labels, lam)
        assert converged
        assert (slope**2).sum() / (4 * lam) < 1e-5 * value, lam
        assert np.abs(slope).max() < 1e-4 * pictures, lam


@pytest.mark.parametrize("decades", [1, 3])
def test_features_on_wildly_different_scales(decades):
    """Columns from 0.1 to 10 and from 1e-3 to 1e3, against scikit-learn's Newton, which no scaling disturbs.

    One decade each way is solved at every lambda. Three are beyond L-BFGS where the penalty is weak, and
    then the probe must know: never a wrong optimum that counts as converged.
    """
    features, labels = make(150, 7, 3, noise=2.0)
    features = features.astype(np.float64) * np.logspace(-decades, decades, 7)
    centred = features - features.mean(axis=0)
    problem = Problem(features, labels, 3)
    certain = []
    for lam in LAMBDAS[::-4]:
        found, converged, _ = problem.solve(lam, EXACT, MAX_ITERATIONS)
        newton = LogisticRegression(C=1 / (2 * lam), solver="newton-cholesky", tol=1e-12, max_iter=500)
        newton.fit(centred, labels)
        want, _ = objective(newton.coef_, newton.intercept_, centred, labels, lam)
        value, _ = objective(found.weight, found.bias, features, labels, lam)
        assert value == pytest.approx(want, rel=1e-6 if converged else 0.1)
        certain.append(converged)
    assert all(certain) if decades == 1 else certain[:4] == [True] * 4


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
    assert np.exp(log_softmax(found.logits(features), axis=1))[0] == pytest.approx([0.2, 0.6, 0.2], abs=1e-5)


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
    monkeypatch.setattr("pipeline.transfer.probe.linear._ROWS", 7)
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
