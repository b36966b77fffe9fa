"""The network that turns images into features: from a run, a file, or trained by others."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from sdclr.backbones import (
    Backbone,
    BackboneConfig,
    Normalisation,
    build_backbone,
    offers_pretrained,
)
from sdclr.backbones.authors_checkpoint import read_authors_checkpoint
from sdclr.backbones.build import require_known_network
from sdclr.backbones.config import WeightsMatch
from sdclr.backbones.image_sizes import fitted_to
from sdclr.backbones.others_weights import load_others, read_others
from sdclr.backbones.weights import load_backbone, normalisation_of, read_backbone
from sdclr.compute.process_state import default_generators
from sdclr.errors import ConfigError, MissingInputError
from sdclr.safe_text import shown

LIBRARIES = ("timm:", "torchvision:")
AUTHORS_SUFFIXES = (".pt", ".pth", ".tar")
USUAL_SIZE = 224


@dataclass(frozen=True, eq=False)
class Encoder:
    """A network in eval mode, and the facts that determine its features."""

    backbone: Backbone
    image_size: int
    """Side in pixels of its input images."""
    name: str
    """Where it came from, for people to read."""
    architecture: BackboneConfig
    """What the network is built from."""
    digest: str
    """Equal for equal features: over its weights, its input normalisation and the image size."""


def open_encoder(
    source: Path | str,
    *,
    weights: Path | None = None,
    weights_match: WeightsMatch = "exact",
    image_size: int | None = None,
    network: nn.Module | None = None,
) -> Encoder:
    """The encoder that ``source`` names.

    A run folder, a backbone.safetensors, a checkpoint of the method's authors (.pt, .pth, .tar), or timm:NAME or
    torchvision:NAME: with ImageNet's weights, which are downloaded once, or with those of the file ``weights``.
    ``weights_match``: how that file must fit: exact; partial: missing tensors stay fresh, with a warning; order: by the
    order of its tensors, whatever their names. ``image_size``: of its input; default: as it was trained. ``network``:
    your own module, for a run with a custom one.
    """
    if weights_match not in get_args(WeightsMatch):
        raise ConfigError(
            f"--weights-match must be {', '.join(get_args(WeightsMatch))}, got {shown(repr(weights_match))}."
        )
    if weights is None and weights_match != "exact":
        raise ConfigError(
            f"--weights-match {weights_match} says how a file must fit, and no file is given. Give --weights FILE, or "
            "leave it out."
        )
    if isinstance(source, str) and source.startswith(LIBRARIES):
        backbone, architecture = _of_a_library(source, weights, weights_match, image_size)
        name = source if weights is None else f"{source} from {weights}"
        return _described(backbone, architecture, image_size or _usual_size(source), name)
    path = Path(source)
    if weights is not None:
        raise ConfigError(
            f"--weights goes with timm:NAME or torchvision:NAME, a network without weights of its own; {shown(path)} "
            "has its own. Leave --weights out."
        )
    if not path.exists():
        raise MissingInputError(f"there is no run folder or file {shown(path)}.")
    if path.suffix in AUTHORS_SUFFIXES and path.is_file():
        checkpoint = read_authors_checkpoint(path)
        usual = 32 if checkpoint.architecture.stem == "small" else USUAL_SIZE
        size = image_size or usual
        return _described(checkpoint.backbone, checkpoint.architecture, size, str(path))
    backbone = load_backbone(path, network)
    trained_size = image_size or backbone.image_size
    if trained_size is None:
        raise ConfigError(
            f"{shown(path)} does not record for which image size it was trained; give --image-size."
        )
    return _described(backbone, read_backbone(path).described.architecture, trained_size, str(path))


def digest_of_file(source: Path | str) -> str:
    """The digest of the encoder in a run folder or a backbone file, without the code of its network."""
    file = read_backbone(source)
    described = file.described.normalisation
    rounded = Backbone(nn.Identity(), described.mean, described.std).to(file.dtype)
    tensors = {
        key: tensor.to(file.dtype) if tensor.is_floating_point() else tensor
        for key, tensor in file.tensors.items()
    }
    return _digest(normalisation_of(rounded), tensors, file.require_image_size())


def _usual_size(name: str) -> int:
    from sdclr.backbones.pretrained import trained_size

    return trained_size(name) or USUAL_SIZE


def _of_a_library(
    name: str, weights: Path | None, match: WeightsMatch, image_size: int | None
) -> tuple[Backbone, BackboneConfig]:
    from sdclr.backbones.pretrained import load_pretrained

    config = BackboneConfig(name=name)
    # with weights from a file, the input is normalised as for the library's own weights, where it has some
    require_known_network(name)
    known = offers_pretrained(config)
    if weights is None and not known:
        raise ConfigError(
            f"there are no weights for {name}; give a file that has some: --weights FILE."
        )
    fitted = fitted_to(config, image_size or _usual_size(name)).model_copy(
        update={"pretrained": known}
    )
    # tensors that a file lacks are the same on every process, and when an interrupted job resumes
    with default_generators(0, torch.device("cpu")):
        backbone = build_backbone(fitted)
    if weights is None:
        try:
            load_pretrained(backbone, name, options=fitted.options)
        except MissingInputError as error:
            raise MissingInputError(
                f"{error} Or give a file that holds them: --weights FILE."
            ) from None
    else:
        account = load_others(backbone.net, read_others(weights), match)
        if account.missing:
            warnings.warn(
                f"{len(account.missing)} of the network's tensors are not in {weights} and stay fresh "
                f"({', '.join(account.missing[:3])}, ...), as --weights-match partial allows.",
                stacklevel=4,
            )
    return backbone.eval(), fitted


def _described(backbone: Backbone, architecture: BackboneConfig, size: int, name: str) -> Encoder:
    digest = _digest(normalisation_of(backbone), backbone.net.state_dict(), size)
    return Encoder(backbone, size, name, architecture, digest)


def _digest(normalisation: Normalisation, tensors: Mapping[str, Tensor], size: int) -> str:
    digest = hashlib.sha256(f"{normalisation.to_dict()} {size}".encode())
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
