"""SDCLR in a training loop of your own: your network, your views, your optimiser.

    python examples/own_loop.py [EPOCHS]

Digits stand for your images. Only the competitor and the loss come from sdclr.
"""

from __future__ import annotations

# %% Images without labels
import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torchvision.transforms import v2

from sdclr import SelfCompetitor, nt_xent

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None].repeat(1, 3, 1, 1)
torch.manual_seed(0)

# %% Any network: images [B, 3, S, S] -> projections [B, D]
backbone = torch.nn.Sequential(
    torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(),
    torch.nn.Conv2d(32, 64, 3, stride=2, padding=1), torch.nn.BatchNorm2d(64), torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(),
)  # fmt: skip
network = torch.nn.Sequential(backbone, torch.nn.Linear(256, 128), torch.nn.ReLU())
network.append(torch.nn.Linear(128, 64))


def neighbours_of_one_class() -> float:
    """The share of images whose nearest neighbour by the backbone is of their own class."""
    with torch.no_grad():
        features = backbone.eval()(torch.nn.functional.interpolate(images, 12))
    backbone.train()
    features = torch.nn.functional.normalize(features)
    nearest = (features @ features.T).fill_diagonal_(-1).argmax(1).numpy()
    return float((digits.target[nearest] == digits.target).mean())


before = neighbours_of_one_class()

# %% Its pruned self: the same parameters, batch norms of its own
competitor = SelfCompetitor(network, prune_ratio=0.7)
both = torch.nn.ModuleList([network, competitor])  # parameters() counts shared ones once
optimizer = torch.optim.AdamW(both.parameters(), lr=1e-3)
views = v2.RandomResizedCrop(12, scale=(0.5, 1.0), antialias=True)

# %% The loop
losses = []
for _ in range(epochs):
    competitor.refresh_masks()  # the rival is always the latest self
    means = []
    for batch in torch.randperm(len(images)).split(128):
        view_a = torch.stack([views(image) for image in images[batch]])
        view_b = torch.stack([views(image) for image in images[batch]])
        loss = nt_xent(network(view_a), competitor(view_b), temperature=0.2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        means.append(loss.item())
    losses.append(float(np.mean(means)))
    print(f"loss {losses[-1]:.3f}")

# %% Only the network is kept
after = neighbours_of_one_class()
print(f"nearest neighbours of the same class: {before:.1%} before, {after:.1%} after training")
