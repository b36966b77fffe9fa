"""Room: images [B, C, S, S] in [0, 1] -> features [B, F]. Any network; knows no method and no data set."""

from typing import TYPE_CHECKING

from sdclr.backbones.config import IMAGENET, BackboneConfig, Normalisation, settings_without_effect
from sdclr.backbones.table import BACKBONES, register_backbone
from sdclr.lazy_names import names_from

if TYPE_CHECKING:
    from sdclr.backbones.activation_checkpointing import checkpoint_activations
    from sdclr.backbones.backbone import Backbone, measure_feature_dim
    from sdclr.backbones.build import build_backbone, input_constants, offers_pretrained
    from sdclr.backbones.pretrained import load_pretrained
    from sdclr.backbones.resnet import contiguous_tails

__all__ = [
    "BACKBONES",
    "IMAGENET",
    "Backbone",
    "BackboneConfig",
    "Normalisation",
    "build_backbone",
    "checkpoint_activations",
    "contiguous_tails",
    "input_constants",
    "load_pretrained",
    "measure_feature_dim",
    "offers_pretrained",
    "register_backbone",
    "settings_without_effect",
]

__getattr__ = names_from(
    __name__,
    {
        "Backbone": "sdclr.backbones.backbone",
        "build_backbone": "sdclr.backbones.build",
        "checkpoint_activations": "sdclr.backbones.activation_checkpointing",
        "contiguous_tails": "sdclr.backbones.resnet",
        "input_constants": "sdclr.backbones.build",
        "load_pretrained": "sdclr.backbones.pretrained",
        "measure_feature_dim": "sdclr.backbones.backbone",
        "offers_pretrained": "sdclr.backbones.build",
    },
)
