"""Checkpoints that Lightning really writes, of networks as lightly builds them, are starting weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.backbones.others_weights import load_others, read_others

pytestmark = [pytest.mark.tools, pytest.mark.filterwarnings("ignore")]  # of Lightning, of torch


@pytest.mark.parametrize("momentum", [False, True], ids=["simclr", "moco"])
def test_a_checkpoint_of_lightlys_tutorials_gives_the_features_of_its_backbone(
    tmp_path: Path, momentum: bool
) -> None:
    lightning = pytest.importorskip("lightning")
    modules = pytest.importorskip("lightly.models.modules")
    utils = pytest.importorskip("lightly.models.utils")

    class Theirs(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters()
            resnet = torchvision.models.resnet18()
            self.backbone = nn.Sequential(*list(resnet.children())[:-1])
            self.projection_head = modules.SimCLRProjectionHead(512, 64, 32)
            if momentum:
                self.backbone_momentum = nn.Sequential(
                    *list(torchvision.models.resnet18().children())[:-1]
                )
                utils.deactivate_requires_grad(self.backbone_momentum)

        def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
            features = self.backbone(batch[0]).flatten(start_dim=1)
            return self.projection_head(features).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), 4)
    theirs = Theirs()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(theirs, loader)
    trainer.save_checkpoint(tmp_path / "theirs.ckpt")

    ours = build_backbone(BackboneConfig(name="resnet18", width=64, stem="large"))
    account = load_others(ours.net, read_others(tmp_path / "theirs.ckpt"))
    assert "projection_head" not in account.found_under
    with torch.no_grad():
        wanted = theirs.eval().backbone(images).flatten(start_dim=1)
        torch.testing.assert_close(ours.net.eval()(images), wanted, rtol=1e-5, atol=1e-5)
