"""What other libraries offer for the same work, where they are installed: kornia's views, lightly's SimCLR."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sdclr.backbones import Backbone, measure_feature_dim


def kornia_views(images: Tensor, size: int) -> Callable[[], object] | None:
    """Two views of uint8 images [B, 3, H, W]; its colour operations share one order over the batch. None: not there."""
    try:
        import kornia.augmentation as K
    except ImportError:
        return None
    chain = nn.Sequential(
        K.RandomResizedCrop((size, size), scale=(0.1, 1.0), resample="bicubic"),
        K.RandomHorizontalFlip(),
        K.ColorJiggle(0.4, 0.4, 0.4, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
    )

    def views() -> tuple[Tensor, Tensor]:
        floats = images.float() / 255
        return chain(floats), chain(floats)

    return views


def lightly_step(
    backbone: Backbone, a: Tensor, b: Tensor, precision: str
) -> Callable[[], None] | None:
    """A SimCLR step on ready views of lightly's head and loss, as its documentation puts them together."""
    try:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead
    except ImportError:
        return None
    width = measure_feature_dim(backbone, a.shape[-1])
    model = nn.Sequential(backbone, SimCLRProjectionHead(width, width, 128)).to(a.device).train()
    criterion = NTXentLoss(temperature=0.2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        with torch.autocast(a.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = criterion(model(a), model(b))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
