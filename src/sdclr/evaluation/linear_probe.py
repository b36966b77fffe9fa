"""The ``sdclr`` protocol's classifier: the paper's linear probe, trained by SGD on augmented images.

N images, B images per batch, S image size, F feature dim, C classes. The backbone is frozen in eval mode; only the
classifier trains: SGD, momentum 0.9, no weight decay, learning rate 30, weights from N(0, 0.01²), bias 0. The epoch is
chosen on validation: the first strict maximum of top-1 accuracy (small images) or of top-5 accuracy (ImageNet), as in
the reference. Crops are not cut here; they are passed in.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from sdclr.compute.stateless_random import Stream, derive, permutation
from sdclr.errors import DataError, NonFiniteError
from sdclr.evaluation.features import Labels, require_finite

NO_VALIDATION = (
    "protocol sdclr chooses its epoch on validation images, and this split holds none out. "
    "Pre-train with data.validation_per_class=N where the data set has it, or use a protocol that needs none: "
    "cached, bcl or ts."
)


@dataclass(frozen=True)
class ProbeSchedule:
    """How long the classifier trains, when the learning rate drops to a tenth, and how often it is validated."""

    epochs: int
    milestones: tuple[int, ...]
    """The first epochs (from 1) of the lower learning rates."""
    evaluate_every: int
    learning_rate: float = 30.0
    batch_size: int = 128
    top_k: int = 1
    """Validation counts an image as correct if its class is among the k best."""

    def rate(self, epoch: int) -> float:
        """Learning rate of epoch 1 .. epochs."""
        return self.learning_rate * 0.1 ** sum(epoch >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class ProbeSchedules:
    """The protocol on one family of data sets."""

    linear: ProbeSchedule
    few_shot: ProbeSchedule


# the reference's CIFAR script lowers the rate AT its milestones, its ImageNet script one epoch after them
CIFAR = ProbeSchedules(
    linear=ProbeSchedule(epochs=30, milestones=(10, 20), evaluate_every=1),
    few_shot=ProbeSchedule(epochs=100, milestones=(40, 60), evaluate_every=5),
)
IMAGENET = ProbeSchedules(
    linear=ProbeSchedule(epochs=30, milestones=(11, 21), evaluate_every=2, batch_size=512, top_k=5),
    few_shot=ProbeSchedule(
        epochs=100, milestones=(41, 61), evaluate_every=10, batch_size=512, top_k=5
    ),
)


@dataclass(frozen=True)
class LinearProbe:
    """The classifier of the best epoch."""

    classifier: nn.Linear
    best_epoch: int
    validation_accuracy: float

    def predict(self, features: Tensor) -> Labels:
        """Classes [N] of features [N, F]."""
        return predict(self.classifier, features)


@torch.inference_mode()
def predict(classifier: nn.Linear, features: Tensor) -> Labels:
    """The classifier's best class [N] for features [N, F]."""
    weight = classifier.weight
    return classifier(features.to(weight.device, weight.dtype)).argmax(dim=1).cpu().numpy()


@torch.inference_mode()
def top_k_accuracy(classifier: nn.Linear, features: Tensor, labels: Labels, k: int) -> float:
    """Share of the features [N, F] whose label is among the classifier's ``k`` best; k is at most C."""
    weight = classifier.weight
    scores = classifier(features.to(weight.device, weight.dtype))  # [N, C]
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices.cpu().numpy()
    return float((best == labels[:, None]).any(axis=1).mean())


def train_linear_probe(
    backbone: nn.Module,
    crops: Callable[[Iterable[Tensor], int], Iterable[Tensor]],
    labels: Labels,
    validation_features: Tensor,
    validation_labels: Labels,
    *,
    num_classes: int,
    schedule: ProbeSchedule,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> LinearProbe:
    """Train on random crops of the images with ``labels`` [N].

    ``crops(batches, epoch)``: positions [B] each -> uint8 [B, C, S, S] each. ``validation_features`` [V, F] of whole
    images. ``advance`` is called with the number of training images done. Raises DataError without validation images,
    which the protocol needs to choose the epoch, and NonFiniteError if features are not finite or the classifier
    diverges.
    """
    if not len(validation_labels):
        raise DataError(NO_VALIDATION)
    require_finite(validation_features, "validation image {}".format)
    parameter = next(backbone.parameters())
    device, dtype = parameter.device, parameter.dtype
    classifier = _fresh_classifier(validation_features.shape[1], num_classes, seed).to(
        device, dtype
    )
    optimizer = torch.optim.SGD(classifier.parameters(), lr=schedule.learning_rate, momentum=0.9)
    targets = torch.from_numpy(labels)
    best: LinearProbe | None = None
    backbone.eval()
    for epoch in range(1, schedule.epochs + 1):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(epoch)
        batches = permutation(derive(seed, Stream.PROBE, epoch), len(labels)).split(
            schedule.batch_size
        )
        for index, images in zip(batches, crops(batches, epoch), strict=True):
            with torch.no_grad():
                features = backbone(images.to(device).to(dtype) / 255)  # [B, F]
            loss = F.cross_entropy(classifier(features), targets[index].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if advance:
                advance(len(index))
        _require_finite_weights(classifier, epoch, schedule.learning_rate)
        if epoch % schedule.evaluate_every == 0:
            accuracy = top_k_accuracy(
                classifier, validation_features, validation_labels, schedule.top_k
            )
            if best is None or accuracy > best.validation_accuracy:
                best = LinearProbe(copy.deepcopy(classifier), epoch, accuracy)
    assert best is not None
    return best


def _fresh_classifier(num_features: int, num_classes: int, seed: int) -> nn.Linear:
    """Weights from N(0, 0.01²), drawn on the CPU in float32 so that every device starts from the same; bias 0."""
    classifier = skip_init(nn.Linear, num_features, num_classes)
    generator = torch.Generator().manual_seed(derive(seed, Stream.PROBE))
    with torch.no_grad():
        classifier.weight.copy_(torch.randn(classifier.weight.shape, generator=generator) * 0.01)
        classifier.bias.zero_()
    return classifier


def _require_finite_weights(classifier: nn.Linear, epoch: int, learning_rate: float) -> None:
    if not all(parameter.isfinite().all() for parameter in classifier.parameters()):
        raise NonFiniteError(
            f"the linear probe diverged in epoch {epoch}: its weights are not finite (learning rate "
            f"{learning_rate:g}). The features of some images are not finite or very large; use the "
            "protocol cached, which standardises them."
        )
