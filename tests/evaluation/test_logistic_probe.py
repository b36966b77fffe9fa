"""The cached probe: scikit-learn's own fit at the strength that validation prefers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from sdclr.evaluation import logistic_probe
from sdclr.evaluation.logistic_probe import (
    INVERSE_REGULARISATIONS,
    LogisticProbe,
    Standardised,
    fit_logistic_probe,
)


def features(num: int, seed: int, num_classes: int = 5) -> tuple[Tensor, np.ndarray]:
    """[num, 20] overlapping classes, with columns of very different scale and mean."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % num_classes
    centres = np.random.default_rng(99).normal(size=(num_classes, 20))
    x = centres[labels] + rng.normal(size=(num, 20)) * 2
    return torch.from_numpy(x * np.logspace(-3, 3, 20) + np.linspace(-50, 50, 20)).float(), labels


TRAIN, VALIDATION, TEST = features(150, 1), features(200, 2), features(300, 3)
NOTHING = (torch.empty(0, 20), np.empty(0, dtype=np.int64))


def sklearns_fit(c: float, train: tuple[Tensor, np.ndarray] = TRAIN) -> Pipeline:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=10_000, tol=1e-8))
    return pipeline.fit(train[0].double().numpy(), train[1])


def probabilities(probe: LogisticProbe, x: Tensor) -> np.ndarray:
    scores = probe.weights.scores(probe.standardised.apply(x))
    return F.softmax(scores.double(), dim=1).numpy()


def objective(given: np.ndarray, weights: np.ndarray, labels: np.ndarray, c: float) -> float:
    """What the fit minimises: C * summed log loss + half the squared weights."""
    loss = log_loss(labels, given, normalize=False)
    return c * loss + 0.5 * (weights.astype(np.float64) ** 2).sum()


@pytest.mark.parametrize("c", [0.001, 0.1, 1.0])
@pytest.mark.parametrize("num_classes", [5, 2])
def test_the_fit_is_sklearns_at_the_same_strength(c: float, num_classes: int) -> None:
    train, validation = features(150, 1, num_classes), features(80, 2, num_classes)
    probe = fit_logistic_probe(*train, *validation, inverse_regularisations=(c,))
    theirs = sklearns_fit(c, train)
    x = theirs[0].transform(train[0].double().numpy())
    best = objective(theirs[-1].predict_proba(x), theirs[-1].coef_, train[1], c)
    found = objective(probabilities(probe, train[0]), probe.weights.weight.numpy(), train[1], c)
    assert best * (1 - 1e-6) <= found <= best * (1 + 1e-4)
    test = features(300, 3, num_classes)[0]
    assert (
        np.abs(probabilities(probe, test) - theirs.predict_proba(test.double().numpy())).mean()
        < 5e-3
    )
    assert (probe.predict(test) == theirs.predict(test.double().numpy())).mean() > 0.98
    assert probe.inverse_regularisation == c
    assert probe.converged


def test_the_strength_is_the_first_best_on_validation() -> None:
    accuracies = [
        (sklearns_fit(c).predict(VALIDATION[0].double().numpy()) == VALIDATION[1]).mean()
        for c in INVERSE_REGULARISATIONS
    ]
    best = int(np.argmax(accuracies))
    assert len(set(accuracies)) == len(accuracies), (
        "no ties, or a last digit of the fit could decide"
    )
    probe = fit_logistic_probe(*TRAIN, *VALIDATION)
    assert probe.inverse_regularisation == INVERSE_REGULARISATIONS[best]
    assert probe.validation_accuracy == pytest.approx(accuracies[best], abs=0.011)
    again = (probe.predict(VALIDATION[0]) == VALIDATION[1]).mean()
    assert probe.validation_accuracy == again, "the classifier kept is the one that was measured"


def test_of_equal_strengths_the_first_is_kept() -> None:
    easy = (torch.tensor([[-1.0], [1.0]] * 20), np.array([0, 1] * 20))
    probe = fit_logistic_probe(*easy, *easy)
    assert (probe.inverse_regularisation, probe.validation_accuracy) == (
        INVERSE_REGULARISATIONS[0],
        1.0,
    )
    hopeless = (easy[0], 1 - easy[1])
    probe = fit_logistic_probe(*easy, *hopeless)
    assert (probe.inverse_regularisation, probe.validation_accuracy) == (
        INVERSE_REGULARISATIONS[0],
        0.0,
    )


def test_without_validation_the_strength_is_one() -> None:
    probe = fit_logistic_probe(*TRAIN, *NOTHING)
    assert probe.inverse_regularisation == 1.0
    assert probe.validation_accuracy is None
    expected = sklearns_fit(1.0).predict(TEST[0].double().numpy())
    assert (probe.predict(TEST[0]) == expected).mean() > 0.99


def test_validation_only_chooses_and_never_trains() -> None:
    alone = fit_logistic_probe(*TRAIN, *VALIDATION, inverse_regularisations=(0.1,))
    other = fit_logistic_probe(*TRAIN, *TEST, inverse_regularisations=(0.1,))
    assert torch.equal(alone.weights.weight, other.weights.weight)
    assert torch.equal(alone.standardised.mean, other.standardised.mean)


def test_a_fit_that_did_not_converge_says_so_without_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logistic_probe, "_MAX_ITERATIONS", 1)
    probe = fit_logistic_probe(*TRAIN, *VALIDATION, inverse_regularisations=(1.0,))
    assert not probe.converged
    assert probe.predict(TEST[0]).shape == (300,)


def test_a_dead_feature_does_not_disturb_the_fit() -> None:
    dead = torch.cat([TRAIN[0], torch.zeros(150, 1)], dim=1)
    dead_validation = torch.cat([VALIDATION[0], torch.zeros(200, 1)], dim=1)
    probe = fit_logistic_probe(dead, TRAIN[1], dead_validation, VALIDATION[1])
    assert probe.validation_accuracy == fit_logistic_probe(*TRAIN, *VALIDATION).validation_accuracy


def test_features_are_standardised_as_sklearns_are() -> None:
    """Constant columns, columns that are constant but for rounding, and far from zero ones."""
    x = torch.cat(
        [TRAIN[0], torch.zeros(150, 1), torch.full((150, 1), 1e6), 0.1 * torch.ones(150, 1)], dim=1
    )
    theirs = StandardScaler().fit(x.double().numpy())
    ours = Standardised.over(x)
    np.testing.assert_allclose(ours.mean.numpy(), theirs.mean_, rtol=1e-12)
    np.testing.assert_allclose(ours.scale.numpy(), theirs.scale_, rtol=1e-12)


def test_more_features_than_images_are_fitted_as_sklearn_does() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(24) % 3
    x = torch.from_numpy(rng.normal(size=(24, 60)) + labels[:, None]).float()
    for c in (0.01, 1.0):
        probe, theirs = (
            fit_logistic_probe(x, labels, x[:0], labels[:0], (c,)),
            sklearns_fit(c, (x, labels)),
        )
        assert probe.converged
        np.testing.assert_allclose(
            probabilities(probe, x), theirs.predict_proba(x.double().numpy()), atol=2e-3
        )


def test_features_that_depend_on_one_another_take_few_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trained network's do, and scikit-learn's search takes long for them."""
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 4, 400)
    centres = 0.3 * rng.normal(size=(4, 20))
    x = 10 * rng.normal(size=(400, 1)) + centres[labels] + rng.normal(size=(400, 20))
    given = torch.from_numpy(x).float(), labels
    monkeypatch.setattr(logistic_probe, "_MAX_ITERATIONS", 20)
    probe = fit_logistic_probe(*given, *NOTHING, inverse_regularisations=(1.0,))
    theirs = sklearns_fit(1.0, given)
    assert theirs[-1].n_iter_[0] > 100
    assert probe.converged
    assert (probe.predict(given[0]) == theirs.predict(given[0].double().numpy())).all()


def require_sklearns_choice(
    x: Tensor, labels: np.ndarray, num_train: int, num_validation: int
) -> None:
    """The strength, and accuracy on the rest within 0.1 point, or the one image more that this may be."""
    train, validation = slice(num_train), slice(num_train, num_train + num_validation)
    test = slice(num_train + num_validation, None)
    probe = fit_logistic_probe(x[train], labels[train], x[validation], labels[validation])
    fits = [sklearns_fit(c, (x[train], labels[train])) for c in INVERSE_REGULARISATIONS]
    accuracies = [
        (one.predict(x[validation].double().numpy()) == labels[validation]).mean() for one in fits
    ]
    best = int(np.argmax(accuracies))
    assert probe.converged
    assert probe.inverse_regularisation == INVERSE_REGULARISATIONS[best]
    theirs = (fits[best].predict(x[test].double().numpy()) == labels[test]).mean()
    ours = (probe.predict(x[test]) == labels[test]).mean()
    assert ours == pytest.approx(theirs, abs=max(0.001, 1.01 / len(labels[test])))


def test_on_real_digits_the_choice_and_the_accuracy_are_sklearns() -> None:
    bunch = load_digits()
    require_sklearns_choice(torch.from_numpy(bunch.data).float(), bunch.target, 500, 500)


@pytest.mark.slow
def test_on_real_photos_the_choice_and_the_accuracy_are_sklearns(cifar10_npz: Path) -> None:
    """8 x 8 averages of CIFAR-10's pixels: 192 features that depend on one another."""
    with np.load(cifar10_npz) as arrays:
        images, labels = arrays["train_images"][:10_000], arrays["train_labels"][:10_000]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    x = F.adaptive_avg_pool2d(pixels, 8).flatten(1)
    require_sklearns_choice(x, labels.astype(np.int64), 4_000, 3_000)


def test_labels_keep_their_names() -> None:
    probe = fit_logistic_probe(TRAIN[0], 10 * TRAIN[1] + 3, VALIDATION[0], 10 * VALIDATION[1] + 3)
    same = fit_logistic_probe(*TRAIN, *VALIDATION)
    assert (probe.predict(TEST[0]) == 10 * same.predict(TEST[0]) + 3).all()


@pytest.mark.gpu
def test_a_device_finds_the_same_classifier() -> None:
    cuda = fit_logistic_probe(*TRAIN, *VALIDATION, device=torch.device("cuda"))
    cpu = fit_logistic_probe(*TRAIN, *VALIDATION)
    assert cuda.inverse_regularisation == cpu.inverse_regularisation
    assert (cuda.predict(TEST[0]) == cpu.predict(TEST[0])).mean() > 0.99
