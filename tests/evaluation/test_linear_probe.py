"""The paper's linear probe: the reference's rates, a frozen backbone, the first best epoch, crops by a slow loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sdclr.backbones import Backbone
from sdclr.backbones.resnet import ResNet
from sdclr.errors import DataError
from sdclr.evaluation.features import extract_features
from sdclr.evaluation.linear_probe import (
    CIFAR,
    IMAGENET,
    LinearProbe,
    ProbeSchedule,
    top_k_accuracy,
    train_linear_probe,
)

Crops = Callable[[Iterable[Tensor], int], Iterable[Tensor]]
SHORT = ProbeSchedule(epochs=3, milestones=(2,), evaluate_every=1, batch_size=16)


def squares(num: int, seed: int, noise: int = 40) -> tuple[Tensor, np.ndarray]:
    """uint8 [num, 3, 8, 8] of 4 classes: which channel is bright, or none; as separable as ``noise`` leaves them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % 4
    images = rng.integers(0, noise, (num, 3, 8, 8))
    for row, label in enumerate(labels):
        if label < 3:
            images[row, label] += 100
    return torch.from_numpy(images.clip(0, 255)).byte(), labels


def tiny_backbone() -> Backbone:
    torch.manual_seed(0)
    backbone = Backbone(ResNet("resnet10", width=4))
    with torch.no_grad():
        backbone(squares(64, 7)[0] / 255)  # batch norms that have seen data
    return backbone.train()


def train(
    backbone: nn.Module, schedule: ProbeSchedule = SHORT, noise: int = 40, seed: int = 0
) -> LinearProbe:
    images, labels = squares(96, 1, noise)
    validation_images, validation_labels = squares(80, 2, noise)
    return train_linear_probe(
        backbone, whole(images), labels, extract_features(backbone, validation_images), validation_labels,
        num_classes=4, schedule=schedule, seed=seed,
    )  # fmt: skip


def whole(images: Tensor) -> Crops:
    """Every image as it is, in every epoch."""
    return lambda batches, epoch: (images[index] for index in batches)


# ---- schedule


@pytest.mark.parametrize(
    ("schedule", "key"),
    [
        (CIFAR.linear, "probe_cifar_e30_m10_20"),
        (CIFAR.few_shot, "probe_cifar_fewshot_e100_m40_60"),
        (IMAGENET.linear, "probe_imagenet_e30_m10_20"),
        (IMAGENET.few_shot, "probe_imagenet_fewshot_e100_m40_60"),
    ],
)
def test_rates_are_the_references(golden: Path, schedule: ProbeSchedule, key: str) -> None:
    with np.load(golden / "lr_schedule.npz") as archive:
        expected = archive[key]
    assert len(expected) == schedule.epochs
    rates = [schedule.rate(epoch) for epoch in range(1, schedule.epochs + 1)]
    np.testing.assert_allclose(rates, expected, rtol=0, atol=1e-12)


def test_the_protocols_look_at_validation_as_often_as_the_reference() -> None:
    assert (CIFAR.linear.evaluate_every, CIFAR.few_shot.evaluate_every) == (1, 5)
    assert (CIFAR.linear.batch_size, CIFAR.few_shot.batch_size) == (128, 128)
    assert (CIFAR.linear.top_k, CIFAR.few_shot.top_k) == (1, 1)
    assert (IMAGENET.linear.evaluate_every, IMAGENET.few_shot.evaluate_every) == (2, 10)
    assert (IMAGENET.linear.batch_size, IMAGENET.few_shot.batch_size) == (512, 512)
    assert (IMAGENET.linear.top_k, IMAGENET.few_shot.top_k) == (5, 5)


def test_top_k_accuracy_is_a_slow_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    classifier, features = nn.Linear(6, 9), torch.randn(50, 6, generator=generator)
    labels = torch.randint(0, 9, (50,), generator=generator).numpy()
    scores = classifier(features).detach().numpy()
    for k in (1, 5, 9, 12):
        right = [label in np.argsort(-row)[:k] for row, label in zip(scores, labels, strict=True)]
        assert top_k_accuracy(classifier, features, labels, k) == pytest.approx(np.mean(right))


# ---- training


def test_the_backbone_is_frozen_bit_for_bit() -> None:
    backbone = tiny_backbone()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert any("running_var" in name for name in before)
    train(backbone)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_a_separable_problem_is_learned() -> None:
    backbone = tiny_backbone()
    probe = train(backbone, replace(SHORT, epochs=12, milestones=(6, 9)), noise=10)
    images, labels = squares(120, 3, noise=10)
    predictions = probe.predict(extract_features(backbone, images))
    assert predictions.shape == (120,)
    assert (predictions == labels).mean() > 0.95
    assert probe.validation_accuracy > 0.95


def test_the_first_best_epoch_on_validation_is_kept() -> None:
    """The accuracy after each epoch comes from runs that look at validation only once, at their end."""
    backbone, last = tiny_backbone(), 7
    ended = [
        train(backbone, ProbeSchedule(epochs, (), evaluate_every=epochs, batch_size=16), noise=300)
        for epochs in range(1, last + 1)
    ]
    accuracies = [probe.validation_accuracy for probe in ended]
    chosen = train(backbone, ProbeSchedule(last, (), evaluate_every=1, batch_size=16), noise=300)
    assert 1 < int(np.argmax(accuracies)) + 1 < last, (
        "an epoch in the middle is best, or this test shows nothing"
    )
    assert chosen.best_epoch == int(np.argmax(accuracies)) + 1
    assert chosen.validation_accuracy == max(accuracies)
    assert torch.equal(chosen.classifier.weight, ended[chosen.best_epoch - 1].classifier.weight)
    assert torch.equal(chosen.classifier.bias, ended[chosen.best_epoch - 1].classifier.bias)


def test_of_equal_epochs_the_first_is_kept() -> None:
    backbone = tiny_backbone()
    schedule = ProbeSchedule(10, (3, 5), evaluate_every=1, batch_size=16)
    accuracies = [
        train(backbone, replace(schedule, epochs=n, evaluate_every=n), noise=2).validation_accuracy
        for n in range(1, 11)
    ]
    assert accuracies.count(max(accuracies)) > 1, "a tie, or this test shows nothing"
    assert train(backbone, schedule, noise=2).best_epoch == accuracies.index(max(accuracies)) + 1


def test_validation_is_only_looked_at_every_so_many_epochs() -> None:
    probe = train(tiny_backbone(), ProbeSchedule(5, (), evaluate_every=2, batch_size=16))
    assert probe.best_epoch in (2, 4)


def test_a_probe_is_a_function_of_its_seed() -> None:
    backbone = tiny_backbone()
    torch.manual_seed(1)
    first = train(backbone)
    torch.manual_seed(2)
    again, other = train(backbone), train(backbone, seed=1)
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_one_step_is_sgd_from_a_small_random_start() -> None:
    """One batch, one epoch: weights = start - 30 * gradient, the gradient of a softmax by hand in float64."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False)).double()
    images, labels = squares(16, 4)
    schedule = ProbeSchedule(epochs=1, milestones=(), evaluate_every=1, batch_size=16)
    given = (backbone, whole(images), labels, extract_features(backbone, images), labels)
    still = train_linear_probe(*given, num_classes=4, schedule=replace(schedule, learning_rate=0.0))
    moved = train_linear_probe(*given, num_classes=4, schedule=schedule)
    start = still.classifier.weight.detach().numpy()
    assert (still.classifier.bias == 0).all()
    assert 0.003 < start.std() < 0.03
    features = extract_features(backbone, images).numpy()
    scores = np.exp(features @ start.T)
    error = scores / scores.sum(axis=1, keepdims=True) - np.eye(4)[labels]
    np.testing.assert_allclose(
        moved.classifier.weight.detach().numpy(), start - 30 * error.T @ features / 16, atol=1e-10
    )
    np.testing.assert_allclose(
        moved.classifier.bias.detach().numpy(), -30 * error.mean(axis=0), atol=1e-10
    )


def test_progress_hears_of_every_training_image() -> None:
    images, labels = squares(20, 5)
    heard: list[int] = []
    train_linear_probe(
        tiny_backbone(), whole(images), labels, torch.zeros(20, 32), labels,
        num_classes=4, schedule=SHORT, advance=heard.append,
    )  # fmt: skip
    assert sum(heard) == 20 * SHORT.epochs


def test_a_split_without_validation_is_refused() -> None:
    images, labels = squares(8, 6)
    with pytest.raises(DataError, match="chooses its epoch on validation images"):
        train_linear_probe(
            tiny_backbone(),
            whole(images),
            labels,
            torch.zeros(0, 32),
            labels[:0],
            num_classes=4,
            schedule=SHORT,
        )
