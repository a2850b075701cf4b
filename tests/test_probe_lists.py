"""The probe on pictures of several classes, its cheaper search, few shots, nearest neighbours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from pipeline.config import UserError
from pipeline.transfer.probe import LAMBDAS, choose, few_shots, fit, neighbours, probe
from pipeline.transfer.probe.choice import COARSE, HALVINGS
from pipeline.transfer.subsets import few_shot

pytestmark = pytest.mark.filterwarnings("error")


def listed(pictures, width, classes, seed=0):
    """(N, D) features, and (N, C) targets of 1, 0 (a tenth) and -1, every class shown and not shown."""
    rng = np.random.default_rng(seed)
    features = np.maximum(rng.normal(0.5, 1, (pictures, width)), 0).astype(np.float32)
    scores = features @ rng.normal(size=(width, classes)) + 0.5 * rng.normal(size=(pictures, classes))
    targets = np.where(scores > np.quantile(scores, 0.7, axis=0), 1, -1).astype(np.int8)
    targets[rng.random(targets.shape) < 0.1] = 0
    return features, targets


@pytest.mark.parametrize("width", [12, 80])  # fewer and more than the 60 pictures
@pytest.mark.parametrize("lam", [1e-5, 1e-2, 1.0, 1e3])
def test_each_class_is_scikit_learns_binary_problem(width, lam):
    """Difficult ones (0) take no part in their own class's problem, and in those of others they do."""
    features, targets = listed(60, width, 4)
    found = fit(features, targets, lam, 4)
    centred = features.astype(np.float64) - features.astype(np.float64).mean(axis=0)
    for number in range(4):
        sure = targets[:, number] != 0
        other = LogisticRegression(C=1 / (2 * lam), tol=1e-12, max_iter=100_000)
        other.fit(centred[sure], targets[sure, number])
        theirs = other.decision_function(centred)
        ours = found.logits(features)[:, number]
        assert ours == pytest.approx(theirs, abs=2e-3 * np.abs(theirs).max())


def test_classes_apart_or_together_are_the_same():
    features, targets = listed(50, 10, 3)
    whole = fit(features, targets, 0.1, 3)
    for number in range(3):
        alone = fit(features, targets[:, [number]], 0.1, 1)
        assert alone.weight[0] == pytest.approx(whole.weight[number], abs=1e-3 * np.abs(whole.weight).max())
        assert alone.bias[0] == pytest.approx(whole.bias[number], abs=1e-3)


def test_a_list_is_chosen_by_the_users_measure():
    features, targets = listed(120, 20, 4)
    rows = np.arange(80), np.arange(80, 120)

    def agreement(logits, given):
        assert logits.shape == given.shape == (40, 4)
        sure = given != 0
        return float(np.mean(np.sign(logits)[sure] == given[sure]))

    found, choice = probe(features, targets, *rows, classes=4, by=agreement)
    best = max(point[1] for point in choice.path)
    assert choice.val_score == best
    assert choice.val_score == agreement(
        fit(features[:80], targets[:80], choice.lam, 4).logits(features[80:]), targets[80:]
    )
    assert np.array_equal(found.weight, fit(features, targets, choice.lam, 4).weight)
    by_loss = choose(features, targets, *rows, classes=4, by="loss")
    assert by_loss.lam == min(by_loss.path, key=lambda point: point[2])[0]
    assert by_loss.val_score == -min(point[2] for point in by_loss.path)


def test_mistakes_in_lists_are_named():
    features, targets = listed(30, 5, 3)
    rows = np.arange(20), np.arange(20, 30)
    with pytest.raises(UserError, match="choose_by: top1 needs one class a picture"):
        choose(features, targets, *rows, classes=3)
    missing = {-1: "class 1 has no training picture;", 1: "class 1 has no training picture without it"}
    for value, message in missing.items():
        wrong = targets.copy()
        wrong[:, 1] = value
        with pytest.raises(UserError, match=message):
            fit(features, wrong, 1.0, 3)
    with pytest.raises(UserError, match=r"label 2 is outside -1\.\.1"):
        fit(features, targets + (targets == 1), 1.0, 3)
    with pytest.raises(UserError, match="shots: several labels"):
        next(few_shots(features, targets, features, classes=3, seeds=[0]))


def separated(pictures, width, classes, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(pictures) % classes)
    centres = rng.normal(size=(classes, width))
    noise = rng.normal(size=(pictures, width))
    return np.maximum(0.5 + 0.4 * centres[labels] + 0.7 * noise, 0).astype(np.float32), labels


def test_the_cheaper_search_is_linear_evals():
    """Seven lambdas two decades apart, then around the best 10, 10^.5, 10^.25, 10^.125: left, then right."""
    features, labels = separated(200, 16, 4)
    rows = np.arange(140), np.arange(140, 200)
    choice = choose(features, labels, *rows, classes=4, search="halving", by="loss")
    tried = {lam: (score, -loss) for lam, score, loss in choice.path}
    assert set(COARSE) <= set(tried)
    assert len(COARSE) + HALVINGS <= len(tried) <= len(COARSE) + 2 * HALVINGS
    best, step, expected = max(COARSE, key=lambda lam: tried[lam][1]), 2.0, set(COARSE)
    for _ in range(HALVINGS):
        step /= 2
        for side in (-1, 1):
            lam = min(tried, key=lambda known: abs(np.log10(known / best) - side * step))
            assert np.log10(lam / best) == pytest.approx(side * step)
            expected.add(lam)
            if tried[lam][1] > tried[best][1]:
                best = lam
                break
    assert set(tried) == expected
    assert choice.lam == best
    full = choose(features, labels, *rows, classes=4, by="loss")
    assert abs(np.log10(full.lam / choice.lam)) < 0.5, "one valley: both searches end in it"


@pytest.mark.parametrize("temperature", [0.07, None])
def test_neighbours_are_scikit_learns(temperature):
    train, labels = separated(150, 12, 5)
    test, _ = separated(40, 12, 5, seed=1)
    weigh = "uniform" if temperature is None else lambda distance: np.exp((1 - distance) / temperature)
    theirs = KNeighborsClassifier(20, weights=weigh, metric="cosine", algorithm="brute").fit(train, labels)
    shares = neighbours(train, labels, test, classes=5, temperature=temperature)
    assert shares == pytest.approx(theirs.predict_proba(test), abs=1e-5)


@given(st.integers(0, 100), st.floats(0.1, 50), st.integers(1, 40))
@settings(max_examples=20)
def test_neighbours_do_not_see_lengths_nor_the_order_of_pictures(seed, scale, k):
    train, labels = separated(60, 8, 4, seed)
    test, _ = separated(15, 8, 4, seed + 1)
    votes = neighbours(train, labels, test, classes=4, k=k)
    assert votes.shape == (15, 4)
    order = np.random.default_rng(seed).permutation(60)
    other = neighbours(train[order] * np.float32(scale), labels[order], test * 3, classes=4, k=k)
    assert other == pytest.approx(votes, rel=1e-3, abs=1e-3)


def test_neighbours_of_lists_in_pieces_and_of_few(monkeypatch):
    features, targets = listed(40, 9, 3)
    votes = neighbours(features, targets, features[:10], classes=3, k=5)
    apart = [neighbours(features, each.astype(int), features[:10], classes=2, k=5) for each in targets.T > 0]
    assert votes == pytest.approx(np.stack([each[:, 1] for each in apart], axis=1))
    monkeypatch.setattr("pipeline.transfer.probe.nearest._PRODUCTS", 120)
    assert neighbours(features, targets, features[:10], classes=3, k=5) == pytest.approx(votes, rel=1e-5)
    few = neighbours(features[:3], targets[:3], features[:10], classes=3, temperature=None)
    assert few == pytest.approx(np.tile((targets[:3] > 0).mean(axis=0), (10, 1))), (
        "all three vote for everybody"
    )


def test_few_shots_learn_from_just_the_drawn_pictures():
    train, labels = separated(120, 16, 4)
    test, truth = separated(60, 16, 4, seed=0)
    drawn = few_shots(train, labels, test, classes=4, seeds=[3, 4])
    found = {(number, seed): answer for number, seed, answer in drawn}
    assert set(found) == {(number, seed) for number in (1, 5, 10, 20) for seed in (3, 4)}
    rows = few_shot(labels, 5, 3, 4, of_drawn=True)
    unit = train / np.linalg.norm(train, axis=1, keepdims=True)
    theirs = LogisticRegression(C=1.0, tol=1e-9, max_iter=10_000).fit(unit[rows].astype(float), labels[rows])
    expected = theirs.predict((test / np.linalg.norm(test, axis=1, keepdims=True)).astype(float))
    assert np.array_equal(found[5, 3], expected)
    spoiled = train.copy()
    spoiled[np.setdiff1d(np.arange(120), rows)] = np.nan
    ((_, _, alone),) = few_shots(spoiled, labels, test, classes=4, seeds=[3], shots=[5])
    assert np.array_equal(alone, found[5, 3])
    right = [np.mean([found[number, seed] == truth for seed in (3, 4)]) for number in (1, 20)]
    assert right[1] > right[0]
    with pytest.raises(UserError, match="per_class=40"):
        list(few_shots(train, labels, test, classes=4, seeds=[0], shots=[40]))


def test_the_grid_is_the_lineages():
    assert len(LAMBDAS) == 45
    assert (LAMBDAS[0], LAMBDAS[-1]) == pytest.approx((1e-6, 1e5))
    assert np.diff(np.log10(LAMBDAS)) == pytest.approx(np.full(44, 0.25))
