"""The paper's linear probe: the reference's rates, a frozen backbone, the first best epoch, crops by a slow loop."""

from __future__ import annotations

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
from sdclr.evaluation.linear_probe import FEW_SHOT, LINEAR, LinearProbe, ProbeSchedule, padded_crops, train_linear_probe
from sdclr.stateless_random import Stream, derive, uniforms

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


def train(backbone: nn.Module, schedule: ProbeSchedule = SHORT, noise: int = 40, **options: int) -> LinearProbe:
    images, labels = squares(96, 1, noise)
    validation_images, validation_labels = squares(80, 2, noise)
    settings = {"num_classes": 4, "feature_dim": 32, "padding": 1, "flip": True, "seed": 0} | options
    return train_linear_probe(
        backbone, images, labels, validation_images, validation_labels, schedule=schedule, **settings
    )


# ---- schedule


@pytest.mark.parametrize(
    ("schedule", "key"),
    [(LINEAR, "probe_cifar_e30_m10_20"), (FEW_SHOT, "probe_cifar_fewshot_e100_m40_60")],
)
def test_rates_are_the_references(golden: Path, schedule: ProbeSchedule, key: str) -> None:
    with np.load(golden / "lr_schedule.npz") as archive:
        expected = archive[key]
    assert len(expected) == schedule.epochs
    rates = [schedule.rate(epoch) for epoch in range(1, schedule.epochs + 1)]
    np.testing.assert_allclose(rates, expected, rtol=0, atol=1e-12)


def test_the_protocols_look_at_validation_as_often_as_the_reference() -> None:
    assert (LINEAR.evaluate_every, FEW_SHOT.evaluate_every) == (1, 5)
    assert (LINEAR.batch_size, FEW_SHOT.batch_size) == (128, 128)


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
    assert 1 < int(np.argmax(accuracies)) + 1 < last, "an epoch in the middle is best, or this test shows nothing"
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
    options = {"num_classes": 4, "feature_dim": 5, "padding": 0, "flip": False}
    still = train_linear_probe(
        backbone, images, labels, images, labels, schedule=replace(schedule, learning_rate=0.0), **options
    )
    moved = train_linear_probe(backbone, images, labels, images, labels, schedule=schedule, **options)
    start = still.classifier.weight.detach().numpy()
    assert (still.classifier.bias == 0).all()
    assert 0.003 < start.std() < 0.03
    features = extract_features(backbone, images).numpy()
    scores = np.exp(features @ start.T)
    error = scores / scores.sum(axis=1, keepdims=True) - np.eye(4)[labels]
    np.testing.assert_allclose(
        moved.classifier.weight.detach().numpy(), start - 30 * error.T @ features / 16, atol=1e-10
    )
    np.testing.assert_allclose(moved.classifier.bias.detach().numpy(), -30 * error.mean(axis=0), atol=1e-10)


def test_progress_hears_of_every_training_image() -> None:
    images, labels = squares(20, 5)
    heard: list[int] = []
    train_linear_probe(
        tiny_backbone(), images, labels, images, labels, num_classes=4, feature_dim=32, schedule=SHORT, padding=1,
        flip=False, advance=heard.append,
    )  # fmt: skip
    assert sum(heard) == 20 * SHORT.epochs


def test_a_split_without_validation_is_refused() -> None:
    images, labels = squares(8, 6)
    with pytest.raises(DataError, match="chooses its epoch on validation images"):
        train_linear_probe(
            tiny_backbone(), images, labels, images[:0], labels[:0],
            num_classes=4, feature_dim=32, schedule=SHORT, padding=1, flip=True,
        )  # fmt: skip


# ---- crops


def noise_images(num: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(8).integers(1, 256, (num, 3, 10, 10))).byte()


@pytest.mark.parametrize(("padding", "flip"), [(4, True), (1, False), (0, True), (0, False), (12, True)])
def test_crops_are_a_slow_loops_with_the_same_uniforms(padding: int, flip: bool) -> None:
    images, index = noise_images(200), torch.arange(200) * 3
    ours = padded_crops(images, index, padding, flip, seed=5, epoch=2)
    u = uniforms(derive(5, Stream.PROBE, 2, 1), index, 3).tolist()
    for row, (vertical, horizontal, coin) in enumerate(u):
        canvas = np.zeros((3, 10 + 2 * padding, 10 + 2 * padding), np.uint8)
        canvas[:, padding : padding + 10, padding : padding + 10] = images[row].numpy()
        top, left = int(vertical * (2 * padding + 1)), int(horizontal * (2 * padding + 1))
        crop = canvas[:, top : top + 10, left : left + 10]
        if flip and coin < 0.5:
            crop = crop[:, :, ::-1]
        np.testing.assert_array_equal(ours[row].numpy(), crop)
    assert ours.dtype == torch.uint8


def test_all_shifts_and_flips_are_equally_likely() -> None:
    """One lit pixel in the middle shows where each crop was taken; pad 1 leaves 9 places."""
    image = torch.zeros(9_000, 3, 5, 5, dtype=torch.uint8)
    image[:, :, 2, 2] = 255
    crops = padded_crops(image, torch.arange(9_000), 1, True, seed=1, epoch=1)
    places = crops[:, 0].flatten(1).argmax(dim=1)
    counts = torch.bincount(places, minlength=25).view(5, 5)[1:4, 1:4]
    assert counts.sum() == 9_000
    assert (counts - 1_000).abs().max() < 5 * 1_000**0.5
    marked = noise_images(2_000)
    unshifted = padded_crops(marked, torch.arange(2_000), 0, True, seed=1, epoch=1)
    flipped = (unshifted == marked.flip(3)).all(dim=3).all(dim=2).all(dim=1)
    assert abs(int(flipped.sum()) - 1_000) < 5 * 500**0.5


def test_crops_are_a_function_of_seed_epoch_and_image_alone() -> None:
    images, index = noise_images(100), torch.arange(100)
    whole = padded_crops(images, index, 4, True, seed=1, epoch=1)
    some = torch.tensor([41, 7, 99])
    assert torch.equal(padded_crops(images[some], some, 4, True, seed=1, epoch=1), whole[some])
    for change in ({"seed": 2, "epoch": 1}, {"seed": 1, "epoch": 2}):
        other = padded_crops(images, index, 4, True, **change)
        assert (other != whole).flatten(1).any(dim=1).float().mean() > 0.9
