"""SDCLR as a module of Lightning.

pip install lightning
python examples/lightning_module.py
"""

from __future__ import annotations

import lightning
import torch
import torchvision

import sdclr


class LitSDCLR(lightning.LightningModule):
    """Batches are (view_a [B, 3, S, S], view_b [B, 3, S, S], index [B])."""

    def __init__(self, network: torch.nn.Module, prune_ratio: float = 0.9) -> None:
        super().__init__()
        self.method = sdclr.SDCLR(network, temperature=0.2, prune_ratio=prune_ratio)

    def on_train_epoch_start(self) -> None:
        self.method.on_epoch_start(self.current_epoch)  # makes the masks of the epoch

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        loss = self.method(sdclr.Views(*batch)).mean()
        self.log("loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)


if __name__ == "__main__":
    views = torch.rand(2, 64, 3, 32, 32)  # your loader of two views
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*views, torch.arange(64)), 16, drop_last=True
    )
    module = LitSDCLR(torchvision.models.resnet18(num_classes=128))
    lightning.Trainer(max_epochs=2).fit(module, loader)
