"""Places-LT and iNaturalist 2018 (ResNet-50 at 224 px, 500 epochs, batch 256). NOT RUN by us, at any scale.

    sdclr pretrain places_lt_sdclr --data PLACES --splits-dir LISTS --out runs/x

The settings of Places-LT are those that GH's authors give for their SDCLR arm (2-layer head, a tenth pruned), with one
schedule for both arms; iNaturalist 2018 has the same, which is our choice. No score is known for either. Cost: 62.5
million views on Places-LT, 437.5 million on iNaturalist 2018.
"""

from __future__ import annotations

from typing import Literal

from sdclr.backbones import BackboneConfig
from sdclr.data import DataConfig, ViewsConfig
from sdclr.methods import SDCLRConfig, SimCLRConfig
from sdclr.settings import PretrainConfig

Dataset = Literal["places_lt", "inaturalist2018"]
SIMCLR_MATCHED = SimCLRConfig(projector_layers=2, temperature=0.2)
SDCLR = SDCLRConfig(projector_layers=2, prune_ratio=0.1, temperature=0.2)


def _listed(recipe: str, dataset: Dataset, method: SimCLRConfig | SDCLRConfig) -> PretrainConfig:
    return PretrainConfig(
        recipe=recipe,
        data=DataConfig(name=dataset),
        views=ViewsConfig(size=224, area=(0.08, 1.0), blur=0.5),
        backbone=BackboneConfig(name="resnet50", stem="large"),
        method=method,
        epochs=500,
        batch_size=256,
    )


def places_lt_simclr_matched() -> PretrainConfig:
    return _listed("places_lt_simclr_matched", "places_lt", SIMCLR_MATCHED)


def places_lt_sdclr() -> PretrainConfig:
    return _listed("places_lt_sdclr", "places_lt", SDCLR)


def inaturalist2018_simclr_matched() -> PretrainConfig:
    return _listed("inaturalist2018_simclr_matched", "inaturalist2018", SIMCLR_MATCHED)


def inaturalist2018_sdclr() -> PretrainConfig:
    return _listed("inaturalist2018_sdclr", "inaturalist2018", SDCLR)
