"""Frozen features: what a plain loop computes, whatever the batch size, and a backbone that nothing happened to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import recall_score
from torch import nn

from sdclr.backbones import Backbone
from sdclr.backbones.resnet import ResNet
from sdclr.errors import DataError, NonFiniteError
from sdclr.evaluation.features import extract_features, per_class_accuracy
from sdclr.evaluation.knn import knn_predict
from sdclr.evaluation.logistic_probe import fit_logistic_probe

IMAGES = torch.randint(
    0, 256, (37, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
)


def tiny_backbone(dtype: torch.dtype = torch.float64) -> Backbone:
    """A ResNet-10 of width 4 whose batch norms have seen data, in training mode."""
    torch.manual_seed(0)
    backbone = Backbone(ResNet("resnet10", width=4)).to(dtype)
    with torch.no_grad():
        backbone(IMAGES.to(dtype) / 255)
    return backbone.train()


def test_features_are_those_of_one_image_after_the_other() -> None:
    backbone = tiny_backbone()
    features = extract_features(backbone, IMAGES)
    backbone.eval()
    with torch.no_grad():
        slow = torch.cat([backbone(image[None].double() / 255) for image in IMAGES])
    assert features.shape == (37, 32)
    torch.testing.assert_close(features, slow, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 36, 37, 1000])
def test_features_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    backbone = tiny_backbone()
    expected = extract_features(backbone, IMAGES)
    torch.testing.assert_close(
        extract_features(backbone, IMAGES.split(batch_size)), expected, rtol=0, atol=1e-12
    )


def test_extraction_leaves_the_backbone_bit_for_bit_as_it_was() -> None:
    backbone = tiny_backbone()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert any("running_mean" in name for name in before)
    features = extract_features(backbone, IMAGES)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert not features.requires_grad


def test_features_have_the_dtype_of_the_backbone() -> None:
    for dtype in (torch.float32, torch.float64):
        assert extract_features(tiny_backbone(dtype), IMAGES).dtype == dtype


def test_dropout_is_off() -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 5)).train()
    assert torch.equal(extract_features(backbone, IMAGES), extract_features(backbone, IMAGES))


def test_progress_hears_of_every_image() -> None:
    heard: list[int] = []
    extract_features(tiny_backbone(), IMAGES.split(16), advance=heard.append)
    assert heard == [16, 16, 5]


def test_per_class_accuracy_is_sklearns_recall() -> None:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(7), rng.integers(0, 7, 200)])
    predictions = np.where(rng.random(207) < 0.5, labels, rng.integers(0, 9, 207))
    ours = per_class_accuracy(predictions, labels, 7)
    theirs = recall_score(labels, predictions, labels=range(7), average=None)
    assert ours == pytest.approx(theirs.tolist(), abs=1e-15)


def test_a_class_without_test_images_is_refused() -> None:
    with pytest.raises(DataError, match="class 1 has no test image"):
        per_class_accuracy(np.array([0, 2]), np.array([0, 2]), 3)
    with pytest.raises(DataError, match="class 3 has no test image"):
        per_class_accuracy(np.array([0, 1, 2]), np.array([0, 1, 2]), 4)


def poisoned(position: int) -> nn.Module:
    """A backbone whose feature of one grey level is not a number."""

    class Poisoned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            means = images.mean(dim=(1, 2, 3))[:, None] * self.weight
            return torch.where(
                means.round(decimals=4) == round(position / 255, 4), torch.nan, means
            )

    return Poisoned()


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_a_feature_that_is_not_a_number_is_an_error_that_names_the_image(batch_size: int) -> None:
    images = torch.arange(10, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    with pytest.raises(NonFiniteError, match=r"features are not finite numbers: photo-7\."):
        extract_features(poisoned(7), images.split(batch_size), name="photo-{}".format)
    assert extract_features(poisoned(70), images).shape == (10, 1)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_every_probe_refuses_features_that_are_not_finite(value: float) -> None:
    good, labels = torch.rand(20, 4), np.arange(20) % 2
    bad = good.clone()
    bad[13, 2] = value
    probe = fit_logistic_probe(good, labels, good, labels)
    for call in (
        lambda: knn_predict(bad, labels, good),
        lambda: knn_predict(good, labels, bad),
        lambda: fit_logistic_probe(bad, labels, good, labels),
        lambda: fit_logistic_probe(good, labels, bad, labels),
        lambda: probe.predict(bad),
    ):
        with pytest.raises(NonFiniteError, match="13"):
            call()


def test_features_in_bf16_are_nearly_those_in_fp32_and_of_the_backbones_type() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 8, 8), generator=generator, dtype=torch.uint8)
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.Flatten(), torch.nn.Linear(216, 5)
    )
    fp32, bf16 = (extract_features(backbone, images, precision=p) for p in ("fp32", "bf16"))
    assert fp32.dtype == bf16.dtype == torch.float32
    assert not torch.equal(fp32, bf16)
    assert F.cosine_similarity(fp32, bf16).min() > 0.999
