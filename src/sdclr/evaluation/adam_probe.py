"""The ``bcl`` protocol's classifier: linear, trained by Adam on features that were extracted once.

N images, B images per batch, F feature dim, C classes. Features are used unchanged: neither standardised nor normalised
to length 1. Nothing is chosen on validation. Source: MediaBrain-SJTU/BCL, whose classifier starts as torch's own linear
layer and whose batches are a new permutation each epoch; both are drawn from the seed here.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from sdclr.compute.stateless_random import Stream, derive, permutation
from sdclr.errors import DataError, NonFiniteError
from sdclr.evaluation.features import Labels, require_finite
from sdclr.evaluation.linear_probe import predict
from sdclr.evaluation.probe import ProbeTask
from sdclr.evaluation.probe_settings import AdamConfig


class LinearByAdam:
    """The linear probe of protocol bcl, on all training images or on a few of each class."""

    def __init__(self, config: AdamConfig) -> None:
        self.config = config
        self.classifier: nn.Linear | None = None
        self._num_images = 0
        self._loss = math.nan

    def fit(self, task: ProbeTask) -> None:
        config, labels = self.config, task.labels
        features = task.features.float().to(task.device)
        require_finite(features, "training row {}".format)
        if len(np.unique(labels)) < 2:
            raise DataError(
                "a probe needs training images of at least 2 classes; these are all of one."
            )
        classifier = initial_classifier(features.shape[1], task.num_classes, task.seed)
        classifier.to(task.device)
        targets = torch.from_numpy(labels).to(task.device)
        optimizer = torch.optim.Adam(
            classifier.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        loss = torch.zeros(())
        with task.progress(f"linear probe ({task.subset})", config.epochs, "epochs") as advance:
            for epoch in range(config.epochs):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(config, epoch)
                order = batch_order(len(labels), task.seed, epoch).to(task.device)
                for index in order.split(config.batch_size):
                    loss = F.cross_entropy(classifier(features[index]), targets[index])
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                advance(1)
        if not all(parameter.isfinite().all() for parameter in classifier.parameters()):
            raise NonFiniteError(
                "the linear probe diverged: its weights are not finite. The features of some images are very large; "
                "use the protocol cached, which standardises them."
            )
        self.classifier = classifier
        self._num_images, self._loss = len(labels), loss.item()

    def predict(self, features: Tensor) -> Labels:
        assert self.classifier is not None
        require_finite(features)
        return predict(self.classifier, features.float())

    @property
    def detail(self) -> str:
        return (
            f"{self._num_images:,} images, {self.config.epochs} epochs of Adam, "
            f"loss of the last batch {self._loss:.4f}"
        )


def learning_rate(config: AdamConfig, epoch: int) -> float:
    """The learning rate of an epoch, from 0; it decays by a constant factor per epoch."""
    factor = (config.final_learning_rate / config.learning_rate) ** (1 / config.epochs)
    return config.learning_rate * factor**epoch


def batch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """int64 [N], the order of the images in an epoch from 0."""
    return permutation(derive(seed, Stream.PROBE, epoch + 1), num_images)


def initial_classifier(num_features: int, num_classes: int, seed: int) -> nn.Linear:
    """Weights and biases uniform within 1 / sqrt(F), as torch initialises a linear layer, from the seed."""
    classifier = skip_init(nn.Linear, num_features, num_classes)
    generator = torch.Generator().manual_seed(derive(seed, Stream.PROBE))
    limit = 1 / math.sqrt(num_features)
    with torch.no_grad():
        classifier.weight.uniform_(-limit, limit, generator=generator)
        classifier.bias.uniform_(-limit, limit, generator=generator)
    return classifier
