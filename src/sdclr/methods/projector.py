"""The projection head g: h [B, F] -> z [B, D], and the network g∘f that the methods train."""

from __future__ import annotations

from torch import Tensor, nn

from sdclr.errors import ConfigError


def projector(
    feature_dim: int, projection_dim: int = 128, num_layers: int = 2, *, last_norm: bool = True
) -> nn.Sequential:
    """The reference's head with 2 layers (its SimCLR) or 3 (its SDCLR): every layer ends in an affine batch norm.

    Hidden layers keep the feature size; only the first linear map has a bias. Without
    ``last_norm`` the last layer is only a linear map.
    """
    if num_layers not in (2, 3):
        raise ConfigError(f"num_layers must be 2 or 3, got {num_layers}.")
    layers: list[nn.Module] = []
    for layer in range(num_layers):
        last = layer == num_layers - 1
        width = projection_dim if last else feature_dim
        layers += [nn.Linear(feature_dim, width, bias=layer == 0), nn.BatchNorm1d(width)]
        layers += [] if last else [nn.ReLU(inplace=True)]
    return nn.Sequential(*(layers if last_norm else layers[:-1]))


class Network(nn.Module):
    """g∘f: images [B, C, S, S] -> projections [B, D]."""

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, images: Tensor) -> Tensor:
        return self.projector(self.backbone(images))
