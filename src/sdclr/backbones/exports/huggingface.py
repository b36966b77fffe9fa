"""A Hugging Face folder in timm's format: model.safetensors, config.json and a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import load_file, save

from sdclr.backbones.exports.network import Exported, Features
from sdclr.backbones.exports.weights import normalised, tensors_of
from sdclr.backbones.weights import normalisation_of
from sdclr.stills import resized_side


def write_folder(trained: Exported, folder: Path, stem: str) -> None:
    content = save(tensors_of(trained), {"format": "pt"})
    (folder / "model.safetensors").write_bytes(content)
    text = json.dumps(_config(trained), indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(trained.card, encoding="utf-8")


def read_folder(trained: Exported, folder: Path, stem: str) -> Features:
    network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    cfg: Any = network.pretrained_cfg
    tensors = load_file(folder / "model.safetensors")
    return normalised(network, list(cfg["mean"]), list(cfg["std"]), tensors)


def _config(trained: Exported) -> dict[str, Any]:
    """As timm.models.save_for_hf writes it: the network, and how its images are prepared."""
    size, constants = trained.image_size, normalisation_of(trained.backbone)
    prepared = {
        "input_size": [constants.channels, size, size],
        "mean": list(constants.mean),
        "std": list(constants.std),
        **(_WHOLE if trained.sees_whole_images else middle_of_timm(size)),
        "num_classes": 0,
    }
    known = timm.get_pretrained_cfg(trained.name)
    if known is not None and known.classifier:
        # so that create_model(..., num_classes=N) makes a fresh layer there instead of reporting it as missing
        prepared["classifier"] = known.classifier
    config = {
        "architecture": trained.name,
        "num_classes": 0,
        "num_features": trained.feature_dim,
        "model_args": trained.as_built.options,
        "pretrained_cfg": prepared,
    }
    if trained.classifier is None:
        return config
    names = list(trained.classifier.class_names)
    prepared["num_classes"] = len(names)
    labels = {"label_names": names, "temperature": trained.classifier.temperature}
    return config | {"num_classes": len(names), **labels}


_WHOLE = {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic"}
"""The preparation of images in memory: resized to the network's size, nothing cut off."""


def middle_of_timm(size: int) -> dict[str, Any]:
    """The preparation of image files by `preprocess` and `sdclr embed`: the middle, 224/256 of the short side.

    timm rounds size / crop_pct down, whereas the short side is the nearest whole number.
    """
    short = resized_side(size)
    share = 224 / 256
    if int(size / share) != short:
        share = size / (short + 0.5)
    return {"crop_pct": share, "crop_mode": "center", "interpolation": "bilinear"}
