"""scikit-learn's digits, made long-tailed: real images without a download, for the demo and for experiments.

    sdclr pretrain digits_sdclr --out runs/digits

About 20 seconds on two CPU cores. Both methods have the same projector and the same budget: they differ only in the
competitor. Digits are not mirrored, turned grey or shifted in hue: a view of a digit remains that digit.
"""

from __future__ import annotations

from typing import Literal

from sdclr.backbones import BackboneConfig
from sdclr.data import DataConfig, ViewsConfig
from sdclr.methods import SDCLRConfig, SimCLRConfig
from sdclr.settings import OptimizerConfig, PretrainConfig


def _digits(
    recipe: str,
    method: SimCLRConfig | SDCLRConfig,
    subset: Literal["long_tail", "balanced"] = "long_tail",
) -> PretrainConfig:
    return PretrainConfig(
        recipe=recipe,
        data=DataConfig(name="digits", subset=subset, imbalance_ratio=20, validation_per_class=18),
        views=ViewsConfig(
            size=12,
            area=(0.4, 1.0),
            flip=0.0,
            jitter=(0.4, 0.4, 0.0, 0.0),
            grey=0.0,
            blur=0.3,
            blur_sigma=(0.1, 1.0),
        ),
        backbone=BackboneConfig(name="resnet10", width=16),
        method=method,
        optimizer=OptimizerConfig(learning_rate=0.3),
        epochs=100,
        batch_size=128,
        checkpoint_every_epochs=50,
    )


def digits_balanced_simclr() -> PretrainConfig:
    return _digits("digits_balanced_simclr", SimCLRConfig(projection_dim=64), "balanced")


def digits_simclr() -> PretrainConfig:
    return _digits("digits_simclr", SimCLRConfig(projection_dim=64))


def digits_sdclr() -> PretrainConfig:
    return _digits("digits_sdclr", SDCLRConfig(projection_dim=64, projector_layers=2))
