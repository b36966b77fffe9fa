"""CIFAR-10-LT and CIFAR-100-LT as the paper trains them (method.md: ResNet-18, 2000 epochs, batch 512).

    sdclr pretrain cifar10_lt_sdclr --data PATH --out runs/x data.split=1

Published linear probe, mean over five splits, "All": SimCLR on the balanced twin 80.88, SimCLR 75.55, SDCLR 82.00 on
CIFAR-10; 46.69, 47.11 and 55.48 on CIFAR-100 (all but 75.55 and 82.00 as reported, unverified). Cost: 44.7 million
views each on CIFAR-10-LT.

The recipes with _50k train the same way on the usual CIFAR-LT sets, without held-out images. No published run has
these settings on these sets, and they have not been run here.
"""

from __future__ import annotations

from typing import Literal

from sdclr.data import DataConfig
from sdclr.methods import SDCLRConfig, SimCLRConfig
from sdclr.settings import PretrainConfig

Dataset = Literal["cifar10", "cifar100", "cifar10_50k", "cifar100_50k"]
VALIDATION_PER_CLASS = {"cifar10": 500, "cifar100": 50, "cifar10_50k": 0, "cifar100_50k": 0}
SIMCLR_AS_PUBLISHED = SimCLRConfig(projector_layers=2)
SIMCLR_MATCHED = SimCLRConfig(projector_layers=3)
SDCLR_AS_PUBLISHED = SDCLRConfig(projector_layers=3, prune_ratio=0.9)


def _cifar(
    recipe: str,
    dataset: Dataset,
    method: SimCLRConfig | SDCLRConfig,
    subset: Literal["long_tail", "balanced"] = "long_tail",
) -> PretrainConfig:
    # everything else of the paper's CIFAR settings is the default of PretrainConfig
    data = DataConfig(
        name=dataset, subset=subset, validation_per_class=VALIDATION_PER_CLASS[dataset]
    )
    return PretrainConfig(recipe=recipe, data=data, method=method)


def cifar10_balanced_simclr() -> PretrainConfig:
    return _cifar("cifar10_balanced_simclr", "cifar10", SIMCLR_AS_PUBLISHED, "balanced")


def cifar10_lt_simclr() -> PretrainConfig:
    return _cifar("cifar10_lt_simclr", "cifar10", SIMCLR_AS_PUBLISHED)


def cifar10_lt_sdclr() -> PretrainConfig:
    return _cifar("cifar10_lt_sdclr", "cifar10", SDCLR_AS_PUBLISHED)


def cifar10_balanced_simclr_matched() -> PretrainConfig:
    return _cifar("cifar10_balanced_simclr_matched", "cifar10", SIMCLR_MATCHED, "balanced")


def cifar10_lt_simclr_matched() -> PretrainConfig:
    return _cifar("cifar10_lt_simclr_matched", "cifar10", SIMCLR_MATCHED)


def cifar100_balanced_simclr() -> PretrainConfig:
    return _cifar("cifar100_balanced_simclr", "cifar100", SIMCLR_AS_PUBLISHED, "balanced")


def cifar100_lt_simclr() -> PretrainConfig:
    return _cifar("cifar100_lt_simclr", "cifar100", SIMCLR_AS_PUBLISHED)


def cifar100_lt_sdclr() -> PretrainConfig:
    return _cifar("cifar100_lt_sdclr", "cifar100", SDCLR_AS_PUBLISHED)


def cifar100_balanced_simclr_matched() -> PretrainConfig:
    return _cifar("cifar100_balanced_simclr_matched", "cifar100", SIMCLR_MATCHED, "balanced")


def cifar100_lt_simclr_matched() -> PretrainConfig:
    return _cifar("cifar100_lt_simclr_matched", "cifar100", SIMCLR_MATCHED)


def cifar10_50k_lt_simclr() -> PretrainConfig:
    return _cifar("cifar10_50k_lt_simclr", "cifar10_50k", SIMCLR_AS_PUBLISHED)


def cifar10_50k_lt_sdclr() -> PretrainConfig:
    return _cifar("cifar10_50k_lt_sdclr", "cifar10_50k", SDCLR_AS_PUBLISHED)


def cifar10_50k_lt_simclr_matched() -> PretrainConfig:
    return _cifar("cifar10_50k_lt_simclr_matched", "cifar10_50k", SIMCLR_MATCHED)


def cifar100_50k_lt_simclr() -> PretrainConfig:
    return _cifar("cifar100_50k_lt_simclr", "cifar100_50k", SIMCLR_AS_PUBLISHED)


def cifar100_50k_lt_sdclr() -> PretrainConfig:
    return _cifar("cifar100_50k_lt_sdclr", "cifar100_50k", SDCLR_AS_PUBLISHED)


def cifar100_50k_lt_simclr_matched() -> PretrainConfig:
    return _cifar("cifar100_50k_lt_simclr_matched", "cifar100_50k", SIMCLR_MATCHED)
