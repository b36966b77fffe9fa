"""The ``sdclr`` protocol's classifier: the paper's linear probe, trained by SGD on augmented images.

N images, S image size, F feature dim, C classes. The backbone is frozen in eval mode; only the classifier trains:
SGD, momentum 0.9, no weight decay, learning rate 30, weights from N(0, 0.01), bias 0. The epoch is chosen on
validation: the first strict maximum of top-1 accuracy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdclr.errors import DataError
from sdclr.evaluation.features import Labels, extract_features
from sdclr.stateless_random import Stream, derive, permutation, uniforms


@dataclass(frozen=True)
class ProbeSchedule:
    """How long the classifier trains, when the rate falls to a tenth, and how often validation is looked at."""

    epochs: int
    milestones: tuple[int, ...]
    evaluate_every: int
    learning_rate: float = 30.0
    batch_size: int = 128

    def rate(self, epoch: int) -> float:
        """Learning rate of epoch 1 .. epochs; as in the reference's CIFAR probe it falls AT a milestone, not after."""
        return self.learning_rate * 0.1 ** sum(epoch >= milestone for milestone in self.milestones)


LINEAR = ProbeSchedule(epochs=30, milestones=(10, 20), evaluate_every=1)
FEW_SHOT = ProbeSchedule(epochs=100, milestones=(40, 60), evaluate_every=5)


@dataclass(frozen=True)
class LinearProbe:
    """The classifier of the best epoch."""

    classifier: nn.Linear
    best_epoch: int
    validation_accuracy: float

    @torch.inference_mode()
    def predict(self, features: Tensor) -> Labels:
        """Classes [N] of features [N, F]."""
        weight = self.classifier.weight
        return self.classifier(features.to(weight.device, weight.dtype)).argmax(dim=1).cpu().numpy()


def train_linear_probe(
    backbone: nn.Module,
    images: Tensor,
    labels: Labels,
    validation_images: Tensor,
    validation_labels: Labels,
    *,
    num_classes: int,
    feature_dim: int,
    schedule: ProbeSchedule,
    padding: int,
    flip: bool,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> LinearProbe:
    """Train on uint8 images [N, 3, S, S], cropped at random after ``padding`` zero pixels and flipped where it fits.

    ``advance`` hears of training images done. Raises DataError without validation images: the protocol chooses on them.
    """
    if not len(validation_labels):
        raise DataError(
            "protocol sdclr chooses its epoch on validation images, and this split holds none out. "
            "Pre-train with data.validation_per_class=N, or use protocol cached."
        )
    device = next(backbone.parameters()).device
    dtype = next(backbone.parameters()).dtype
    classifier = nn.Linear(feature_dim, num_classes, device=device, dtype=dtype)
    generator = torch.Generator().manual_seed(derive(seed, Stream.PROBE))
    with torch.no_grad():
        classifier.weight.copy_(torch.randn(classifier.weight.shape, generator=generator) * 0.01)
        classifier.bias.zero_()
    optimizer = torch.optim.SGD(classifier.parameters(), lr=schedule.learning_rate, momentum=0.9)
    targets = torch.from_numpy(labels).to(device)
    validation_features = extract_features(backbone, validation_images)
    best: LinearProbe | None = None
    backbone.eval()
    for epoch in range(1, schedule.epochs + 1):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(epoch)
        for index in permutation(derive(seed, Stream.PROBE, epoch), len(images)).split(schedule.batch_size):
            crops = padded_crops(images[index], index, padding, flip, seed=seed, epoch=epoch)
            with torch.no_grad():
                features = backbone(crops.to(device).to(dtype) / 255)  # [B, F]
            loss = F.cross_entropy(classifier(features), targets[index.to(device)])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if advance:
                advance(len(index))
        if epoch % schedule.evaluate_every == 0:
            probe = LinearProbe(classifier, epoch, 0.0)
            accuracy = float((probe.predict(validation_features) == validation_labels).mean())
            if best is None or accuracy > best.validation_accuracy:
                best = LinearProbe(copy.deepcopy(classifier), epoch, accuracy)
    assert best is not None
    return best


def padded_crops(images: Tensor, index: Tensor, padding: int, flip: bool, *, seed: int, epoch: int) -> Tensor:
    """uint8 [B, 3, S, S]: each image shifted by up to ``padding`` pixels either way (zeros come in), half flipped.

    A pure function of (seed, epoch, image index).
    """
    side = images.shape[-1]
    u = uniforms(derive(seed, Stream.PROBE, epoch, 1), index, 3)  # [B, 3]
    shift = (u[:, :2] * (2 * padding + 1)).long()
    span = torch.arange(side)
    rows, columns = shift[:, :1] + span, shift[:, 1:] + span  # [B, S]
    if flip:
        columns = torch.where(u[:, 2:] < 0.5, columns.flip(1), columns)
    padded = F.pad(images, (padding,) * 4)
    batch, channel = torch.arange(len(images))[:, None, None, None], torch.arange(3)[None, :, None, None]
    return padded[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]
