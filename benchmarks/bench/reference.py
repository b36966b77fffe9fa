"""The baseline: the same training done as the 2021 reference does it, its arithmetic re-stated and not copied.

Pillow transforms, one image at a time, in DataLoader workers; the competitor forward without gradient, then target and
competitor forward and backward one after the other; negatives picked by a boolean mask that the host builds at every
loss; all weights sorted on the host once an epoch; fp32, contiguous. B images, D projection dim.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from sdclr.methods.sdclr import SDCLR
from sdclr.methods.self_competitor import SelfCompetitor

WORKERS = os.cpu_count() or 1
"""As many workers as there are cores, as a user would set it."""
QUEUED = 2 * WORKERS
"""Batches that a DataLoader makes ahead."""


class PillowPairs(Dataset[tuple[Tensor, Tensor]]):
    """Two views of an image, drawn by torchvision's transforms on Pillow images."""

    def __init__(self, images: Tensor, size: int) -> None:
        """``images``: uint8 [N, 3, H, W]."""
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()
        bicubic = transforms.InterpolationMode.BICUBIC
        self.chain = transforms.Compose(
            [
                transforms.RandomResizedCrop(size, (0.1, 1.0), interpolation=bicubic),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                transforms.RandomGrayscale(p=0.2),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        image = Image.fromarray(self.images[position])
        return self.chain(image), self.chain(image)


def endless_batches(
    pairs: PillowPairs, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches out of workers, on ``device``."""
    sampler = RandomSampler(pairs, replacement=True, num_samples=1 << 40)
    cuda = device.type == "cuda"
    loader = DataLoader(pairs, batch_size, sampler=sampler, num_workers=WORKERS, pin_memory=cuda)
    for a, b in loader:
        yield a.to(device, non_blocking=True), b.to(device, non_blocking=True)


def boolean_mask_loss(z_a: Tensor, z_b: Tensor, temperature: float = 0.2) -> Tensor:
    """NT-Xent, a scalar: a matrix of similarities, the host's mask of negatives, cross entropy."""
    batch = len(z_a)
    z = F.normalize(torch.cat([z_a, z_b]), dim=1)
    similarity = z @ z.T  # [2B, 2B]
    is_negative = torch.ones(2 * batch, 2 * batch, dtype=torch.bool)
    for row in range(2 * batch):
        is_negative[row, row] = is_negative[row, (row + batch) % (2 * batch)] = False
    negatives = similarity.masked_select(is_negative.to(z.device)).view(2 * batch, -1)
    positives = torch.cat([similarity.diagonal(batch), similarity.diagonal(-batch)])
    logits = torch.cat([positives[:, None], negatives], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(2 * batch, dtype=torch.long, device=z.device))


class ReferenceStep:
    """One optimiser step of SDCLR: three forwards, two backwards."""

    def __init__(self, method: SDCLR, device: torch.device) -> None:
        self.method = method.to(device).to(memory_format=torch.contiguous_format).train()
        self.optimizer = torch.optim.SGD(
            method.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4
        )

    def __call__(self, views: tuple[Tensor, Tensor]) -> None:
        a, b = views
        self.optimizer.zero_grad()
        with torch.no_grad():
            z_competitor = self.method.competitor(b)
        z_target = self.method.network(a)
        boolean_mask_loss(z_target, z_competitor).backward()
        boolean_mask_loss(z_target.detach(), self.method.competitor(b)).backward()
        self.optimizer.step()


def host_sort(competitor: SelfCompetitor) -> list[Tensor]:
    """The reference's way to masks: every magnitude to the host, a full sort by NumPy, one comparison a layer."""
    weights = [parameter.detach() for parameter in competitor.parameters() if parameter.ndim == 4]
    magnitudes = np.concatenate([weight.abs().cpu().numpy().ravel() for weight in weights])
    threshold = float(np.sort(magnitudes)[math.ceil(competitor.prune_ratio * len(magnitudes))])
    return [(weight.abs() >= threshold).float() for weight in weights]


def drain(batches: Iterator[object], step: Callable[..., object], num: int) -> None:
    """``num`` steps on the batches to come."""
    for batch in itertools.islice(batches, num):
        step(batch)
