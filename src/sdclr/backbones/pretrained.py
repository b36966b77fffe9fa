"""Weights that others have trained, as a starting point: torchvision's and timm's, on ImageNet. Downloads.

Downloads contain only tensors (weights_only); nothing pickled is executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor
from torchvision.models.vision_transformer import interpolate_embeddings

from sdclr.backbones.backbone import Backbone
from sdclr.backbones.build import check_pretrained
from sdclr.errors import MissingInputError, SdclrError
from sdclr.storage.named_tensors import load_strictly


def load_pretrained(
    backbone: Backbone,
    name: str,
    width: int = 64,
    stem: str = "large",
    options: Mapping[str, Any] | None = None,
) -> None:
    """Load ImageNet weights into the network that :func:`~sdclr.backbones.build_backbone` made for these settings.

    Position embeddings of a network that ``options`` build for another image size are interpolated, by timm and
    torchvision. Raises ConfigError where there are no such weights, MissingInputError when they cannot be downloaded.
    """
    kind, _, model = name.rpartition(":")
    check_pretrained(name, width, stem)
    try:
        read = _timm_weights if kind == "timm" else _torchvision_weights
        tensors = read(model, options or {})
    except SdclrError:
        raise
    except Exception as error:  # urllib, requests and the hub's own errors share no base
        raise MissingInputError(
            f"the pre-trained weights of {name} could not be fetched: {type(error).__name__}: "
            f"{str(error).rstrip('.')}. They need a network once; a machine that has them can share its torch and "
            "Hugging Face caches (TORCH_HOME, HF_HOME)."
        ) from None
    wanted = backbone.net.state_dict()
    # the classifier is not used; everything else must fit exactly
    load_strictly(
        backbone.net, {key: tensor for key, tensor in tensors.items() if key in wanted}, name
    )


def trained_size(name: str) -> int | None:
    """Side of the images that the weights of timm or torchvision were trained on; None where it is not known."""
    kind, _, model = name.rpartition(":")
    if kind == "timm":
        facts = timm.get_pretrained_cfg(model)
        return int(facts.input_size[-1]) if facts is not None else None
    if model not in torchvision.models.list_models(module=torchvision.models):
        return None
    (side,) = _torchvision_entry(model).transforms().crop_size
    return int(side)


def trained_with(name: str) -> tuple[Sequence[float], Sequence[float]] | None:
    """Mean and std by which the input was normalised when these weights were trained; None where not known."""
    kind, _, model = name.rpartition(":")
    if kind == "timm":
        facts = timm.get_pretrained_cfg(model)
        return (facts.mean, facts.std) if facts is not None else None
    if model not in torchvision.models.list_models(module=torchvision.models):
        return None
    if model in _TRANSFORM_INPUT:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    transforms = _torchvision_entry(model).transforms()
    return transforms.mean, transforms.std


_TRANSFORM_INPUT = ("googlenet", "inception_v3")
"""Networks of torchvision that undo ImageNet's normalisation themselves where it loads their weights: transform_input.
Built without weights, as here, they do not."""


def _torchvision_entry(model: str) -> Any:
    """The weights that existed at the time of the paper, or the default ones."""
    weights = torchvision.models.get_model_weights(model)
    return weights.__members__.get("IMAGENET1K_V1", weights.DEFAULT)


def _torchvision_weights(model: str, options: Mapping[str, Any]) -> Mapping[str, Tensor]:
    tensors = torch.hub.load_state_dict_from_url(
        _torchvision_entry(model).url,
        map_location="cpu",
        progress=False,
        check_hash=True,
        weights_only=True,
    )
    if model.startswith("vit_"):
        patch = tensors["conv_proj.weight"].shape[-1]
        tensors = interpolate_embeddings(options.get("image_size", 224), patch, tensors)
    return tensors


def _timm_weights(model: str, options: Mapping[str, Any]) -> Mapping[str, Tensor]:
    return timm.create_model(model, pretrained=True, num_classes=0, **options).state_dict()
