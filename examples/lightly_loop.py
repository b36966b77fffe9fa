"""lightly's training loop with SDCLR's branches and our loss: `sdclr.nt_xent`.

pip install lightly
python examples/lightly_loop.py photos
"""

from __future__ import annotations

import sys

import torch
import torchvision
from lightly.data import LightlyDataset
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform

import sdclr


def train(photos: str, epochs: int = 100, size: int = 224, batch: int = 64) -> list[float]:
    """Mean losses of the epochs; lightly draws the views, the competitor is ours."""
    backbone = torchvision.models.resnet18()
    backbone.fc = torch.nn.Identity()
    network = torch.nn.Sequential(backbone, SimCLRProjectionHead(512, 512, 128))
    competitor = sdclr.SelfCompetitor(network, prune_ratio=0.9)
    both = torch.nn.ModuleList([network, competitor])
    optimizer = torch.optim.SGD(both.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
    dataset = LightlyDataset(photos, transform=SimCLRTransform(input_size=size))
    loader = torch.utils.data.DataLoader(dataset, batch, shuffle=True, drop_last=True)
    means = []
    for _ in range(epochs):
        competitor.refresh_masks()  # the rival is always the latest self
        losses = []
        for (view_a, view_b), *_ in loader:
            loss = sdclr.nt_xent(network(view_a), competitor(view_b), temperature=0.2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    return means


if __name__ == "__main__":
    print(train(sys.argv[1]))
