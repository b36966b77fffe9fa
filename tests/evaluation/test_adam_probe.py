"""The linear probe of protocol bcl against Adam written out by hand, and the training that is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdclr.errors import DataError, NonFiniteError
from sdclr.evaluation.adam_probe import (
    LinearByAdam,
    batch_order,
    initial_classifier,
    learning_rate,
)
from sdclr.evaluation.probe import GivenImages, ProbeTask
from sdclr.evaluation.probe_settings import AdamConfig
from sdclr.evaluation.probes import PROBES


def task_of(num: int = 90, seed: int = 3) -> ProbeTask:
    """Overlapping classes whose features have unequal scales."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, num)
    centres = rng.normal(size=(4, 6))
    features = (centres[labels] + rng.normal(size=(num, 6))) * rng.uniform(0.2, 3, 6)
    images = GivenImages(torch.from_numpy(features).float(), labels)
    nothing = GivenImages(images.features[:0], labels[:0])
    return ProbeTask(images, nothing, num_classes=4, seed=seed)


def by_hand(task: ProbeTask, epochs: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights [C, F] and biases [C] of Adam in fp64: softmax gradients, moments and their corrections."""
    x, y = task.features.double().numpy(), task.labels
    start = initial_classifier(x.shape[1], task.num_classes, task.seed)
    w = np.concatenate([start.weight.detach().numpy(), start.bias.detach().numpy()[:, None]], 1)
    w = w.astype(np.float64)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    first, second, step = np.zeros_like(w), np.zeros_like(w), 0
    rate = 1e-2
    for epoch in range(epochs):
        order = batch_order(len(x), task.seed, epoch).numpy()
        for begin in range(0, len(x), batch):
            index = order[begin : begin + batch]
            scores = x[index] @ w.T
            p = np.exp(scores - scores.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            p[np.arange(len(index)), y[index]] -= 1
            gradient = p.T @ x[index] / len(index) + 5e-6 * w
            step += 1
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            corrected = first / (1 - 0.9**step)
            w -= rate * corrected / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        rate *= (1e-6 / 1e-2) ** (1 / epochs)
    return w[:, :-1], w[:, -1]


@pytest.mark.parametrize("batch", [1000, 32])
def test_weights_are_those_of_adam_by_hand(batch: int) -> None:
    task = task_of()
    probe = LinearByAdam(AdamConfig(epochs=40, batch_size=batch))
    probe.fit(task)
    assert probe.classifier is not None
    weight, bias = by_hand(task, 40, batch)
    assert np.allclose(probe.classifier.weight.detach().numpy(), weight, atol=2e-5)
    assert np.allclose(probe.classifier.bias.detach().numpy(), bias, atol=2e-5)
    expected = (task.features.double().numpy() @ weight.T + bias).argmax(1)
    assert probe.predict(task.features).tolist() == expected.tolist()


def test_the_protocol_is_500_epochs_of_1000_images_from_a_hundredth_to_a_millionth() -> None:
    probe, settings = PROBES["linear"].build("bcl")
    assert isinstance(probe, LinearByAdam)
    assert settings.to_dict() == {
        "epochs": 500,
        "batch_size": 1000,
        "learning_rate": 1e-2,
        "final_learning_rate": 1e-6,
        "weight_decay": 5e-6,
    }
    rates = [learning_rate(probe.config, epoch) for epoch in range(501)]
    assert rates[0] == 1e-2
    assert rates[500] == pytest.approx(1e-6)
    assert np.allclose(np.diff(np.log(rates)), np.log(1e-4) / 500)


def test_the_classifier_starts_within_torchs_limits_and_from_the_seed() -> None:
    first, again, other = (initial_classifier(25, 400, seed) for seed in (1, 1, 2))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert 0.19 < first.weight.abs().max() <= 0.2
    assert 0.1 < first.bias.abs().max() <= 0.2


def test_one_class_and_features_that_are_not_finite_are_errors() -> None:
    task = task_of()
    one = ProbeTask(GivenImages(task.features, task.labels * 0), task.validation, 4)
    with pytest.raises(DataError, match="at least 2 classes"):
        LinearByAdam(AdamConfig()).fit(one)
    broken = task.features.clone()
    broken[5, 2] = torch.nan
    with pytest.raises(NonFiniteError, match="training row 5"):
        LinearByAdam(AdamConfig()).fit(
            ProbeTask(GivenImages(broken, task.labels), task.validation, 4)
        )
