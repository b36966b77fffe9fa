"""The linear SVM of protocol ts against its objective, minimised otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.probe import GivenImages, ProbeTask
from sdclr.evaluation.probe_settings import SVMConfig
from sdclr.evaluation.svm_probe import LinearSVM


def cloud(num: int, seed: int, num_features: int = 12) -> tuple[Tensor, np.ndarray]:
    """Overlapping classes of unequal size, features of unequal length."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.4, num) - 1, 3)
    centres = np.random.default_rng(9).normal(size=(4, num_features))
    features = centres[labels] + rng.normal(size=(num, num_features))
    return torch.from_numpy(features * rng.uniform(0.1, 10, (num, 1))).float(), labels


def minimised(features: Tensor, labels: np.ndarray) -> Tensor:
    """[C, F + 1]: 1/2 |w|^2 + sum of squared hinges at C = 1, the bias regularised like a weight, by L-BFGS in fp64."""
    x = features.double()
    x = x / x.square().sum(1, keepdim=True).sqrt()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    found = []
    for c in range(4):
        sign = torch.from_numpy(np.where(labels == c, 1.0, -1.0))
        w = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([w], max_iter=300, line_search_fn="strong_wolfe")

        def objective(w: Tensor = w, sign: Tensor = sign) -> Tensor:
            w.grad = None
            hinge = (1 - sign * (x @ w)).clamp(min=0)
            loss = w.square().sum() / 2 + hinge.square().sum()
            loss.backward()
            return loss

        optimizer.step(objective)
        found.append(w.detach())
    return torch.stack(found)


@pytest.mark.parametrize(("num", "num_features"), [(300, 12), (24, 40)])
def test_it_is_the_minimum_of_the_squared_hinge(num: int, num_features: int) -> None:
    features, labels = cloud(num, 1, num_features)
    tests, _ = cloud(200, 2, num_features)
    nothing = GivenImages(features[:0], labels[:0])
    probe = LinearSVM(SVMConfig())
    probe.fit(ProbeTask(GivenImages(features, labels), nothing, 4))
    weights = minimised(features, labels)
    ours = np.concatenate([probe.svm.coef_, probe.svm.intercept_[:, None]], 1)
    assert np.allclose(ours, weights.numpy(), atol=2e-3)
    unit = tests.double() / tests.double().square().sum(1, keepdim=True).sqrt()
    scores = unit @ weights[:, :-1].T + weights[:, -1]
    margin = scores.topk(2).values.diff(dim=1).abs()[:, 0] > 5e-3
    assert margin.float().mean() > 0.9
    assert torch.equal(torch.from_numpy(probe.predict(tests))[margin], scores.argmax(1)[margin])
    assert probe.detail == f"C = 1, {num} images"


def test_a_fit_that_has_not_converged_says_so_and_does_not_warn() -> None:
    features, labels = cloud(300, 1)
    probe = LinearSVM(SVMConfig(max_iterations=1))
    probe.fit(ProbeTask(GivenImages(features, labels), GivenImages(features[:0], labels[:0]), 4))
    assert probe.detail.endswith("NOT converged")


def test_labels_of_the_data_are_predicted_where_a_class_is_missing() -> None:
    features, labels = cloud(300, 1)
    kept = labels != 1
    images = GivenImages(features[kept], labels[kept])
    probe = LinearSVM(SVMConfig())
    probe.fit(ProbeTask(images, GivenImages(features[:0], labels[:0]), 4))
    assert set(probe.predict(features).tolist()) == {0, 2, 3}
    with pytest.raises(DataError, match="at least 2 classes"):
        probe.fit(ProbeTask(GivenImages(features, labels * 0), images, 4))
