"""Settings -> a method around a backbone."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from sdclr.methods.config import SDCLRConfig, SimCLRConfig
from sdclr.methods.method import Method
from sdclr.methods.projector import Network, projector
from sdclr.methods.sdclr import SDCLR
from sdclr.methods.simclr import SimCLR


def build_method(
    config: SimCLRConfig | SDCLRConfig,
    backbone: nn.Module,
    feature_dim: int,
    seed: int,
    prepare: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> Method:
    """The method around a backbone that maps images to features [B, feature_dim].

    ``prepare``: what is done to the whole network before a competitor copies it.
    """
    head = projector(feature_dim, config.projection_dim, config.projector_layers)
    network = prepare(Network(backbone, head))
    if isinstance(config, SDCLRConfig):
        return SDCLR(
            network,
            config.temperature,
            prune_ratio=config.prune_ratio,
            norms=config.norms,
            prunable=config.prunable,
            spared=("projector",),
            random_share=config.random_share,
            seed=seed,
        )
    return SimCLR(network, config.temperature)
