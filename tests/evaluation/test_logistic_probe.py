"""The cached probe: scikit-learn's own fit at the strength that validation prefers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from sdclr.evaluation import logistic_probe
from sdclr.evaluation.logistic_probe import INVERSE_REGULARISATIONS, fit_logistic_probe


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


def objective(classifier: LogisticRegression, x: np.ndarray, labels: np.ndarray, c: float) -> float:
    """What the fit minimises: C * summed log loss + half the squared weights."""
    return (
        c * log_loss(labels, classifier.predict_proba(x), normalize=False)
        + 0.5 * (classifier.coef_.astype(np.float64) ** 2).sum()
    )


@pytest.mark.parametrize("c", [0.001, 0.1, 1.0])
@pytest.mark.parametrize("num_classes", [5, 2])
def test_the_fit_is_sklearns_at_the_same_strength(c: float, num_classes: int) -> None:
    train, validation = features(150, 1, num_classes), features(80, 2, num_classes)
    probe = fit_logistic_probe(*train, *validation, inverse_regularisations=(c,))
    theirs = sklearns_fit(c, train)
    x = theirs[0].transform(train[0].double().numpy())
    best = objective(theirs[-1], x, train[1], c)
    assert best * (1 - 1e-6) <= objective(probe.classifier, x, train[1], c) <= best * (1 + 2e-3)
    test = features(300, 3, num_classes)[0]
    ours = probe.classifier.predict_proba(probe.scaler.transform(test.numpy()))
    assert np.abs(ours - theirs.predict_proba(test.double().numpy())).mean() < 5e-3
    assert (probe.predict(test) == theirs.predict(test.double().numpy())).mean() > 0.98
    assert probe.inverse_regularisation == c
    assert probe.converged


def test_the_strength_is_the_first_best_on_validation() -> None:
    accuracies = [
        (sklearns_fit(c).predict(VALIDATION[0].double().numpy()) == VALIDATION[1]).mean()
        for c in INVERSE_REGULARISATIONS
    ]
    best = int(np.argmax(accuracies))
    assert len(set(accuracies)) == len(accuracies), "no ties, or a last digit of the fit could decide"
    probe = fit_logistic_probe(*TRAIN, *VALIDATION)
    assert probe.inverse_regularisation == INVERSE_REGULARISATIONS[best]
    assert probe.validation_accuracy == pytest.approx(accuracies[best], abs=0.011)
    again = (probe.predict(VALIDATION[0]) == VALIDATION[1]).mean()
    assert probe.validation_accuracy == again, "the classifier kept is the one that was measured"


def test_of_equal_strengths_the_first_is_kept() -> None:
    easy = (torch.tensor([[-1.0], [1.0]] * 20), np.array([0, 1] * 20))
    probe = fit_logistic_probe(*easy, *easy)
    assert (probe.inverse_regularisation, probe.validation_accuracy) == (INVERSE_REGULARISATIONS[0], 1.0)
    hopeless = (easy[0], 1 - easy[1])
    probe = fit_logistic_probe(*easy, *hopeless)
    assert (probe.inverse_regularisation, probe.validation_accuracy) == (INVERSE_REGULARISATIONS[0], 0.0)


def test_without_validation_the_strength_is_one() -> None:
    probe = fit_logistic_probe(*TRAIN, *NOTHING)
    assert probe.inverse_regularisation == 1.0
    assert probe.validation_accuracy is None
    expected = sklearns_fit(1.0).predict(TEST[0].double().numpy())
    assert (probe.predict(TEST[0]) == expected).mean() > 0.99


def test_validation_only_chooses_and_never_trains() -> None:
    alone = fit_logistic_probe(*TRAIN, *VALIDATION, inverse_regularisations=(0.1,))
    other = fit_logistic_probe(*TRAIN, *TEST, inverse_regularisations=(0.1,))
    np.testing.assert_array_equal(alone.classifier.coef_, other.classifier.coef_)
    np.testing.assert_array_equal(alone.scaler.mean_, other.scaler.mean_)


def test_a_fit_that_did_not_converge_says_so_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic_probe, "_MAX_ITERATIONS", 1)
    probe = fit_logistic_probe(*TRAIN, *VALIDATION, inverse_regularisations=(1.0,))
    assert not probe.converged
    assert probe.predict(TEST[0]).shape == (300,)


def test_a_dead_feature_does_not_disturb_the_fit() -> None:
    dead = torch.cat([TRAIN[0], torch.zeros(150, 1)], dim=1)
    dead_validation = torch.cat([VALIDATION[0], torch.zeros(200, 1)], dim=1)
    probe = fit_logistic_probe(dead, TRAIN[1], dead_validation, VALIDATION[1])
    assert probe.validation_accuracy == fit_logistic_probe(*TRAIN, *VALIDATION).validation_accuracy
