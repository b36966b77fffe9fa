"""What is exported: a trained backbone, or a classifier, and the network of timm or torchvision that computes the same.

Whether a library has such a network is tested: it takes all the tensors, and gives the same features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

import sdclr
from sdclr.backbones.backbone import Backbone
from sdclr.backbones.build import build_backbone, torchvision_code
from sdclr.backbones.classifier import Classifier
from sdclr.backbones.config import BackboneConfig, settings_without_effect
from sdclr.backbones.exports.headed import (
    HeadedNetwork,
    NoSuchHead,
    headed_code,
    headed_like,
    headed_network,
)
from sdclr.backbones.exports.table import EXPORTS, ExportRow
from sdclr.backbones.others_weights import EXPORT_FORMAT
from sdclr.backbones.weights import normalisation_of
from sdclr.compute.process_state import default_generators
from sdclr.errors import CheckpointError, ConfigError
from sdclr.safe_text import shown
from sdclr.storage.named_tensors import load_strictly

Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Exported:
    """A backbone in eval mode on the CPU, with a head where there is one, and the facts that go with it."""

    backbone: Backbone
    architecture: BackboneConfig
    """The network whose names the tensors have in the file: a library's, where the format requires one."""
    image_size: int
    feature_dim: int
    source: str
    """The name of the run or the file it comes from; not a path, as files are passed on to others."""
    card: str = field(default="", repr=False)
    """The model card, for formats that have one."""
    classifier: Classifier | None = None
    """The whole classifier, where that is what is exported; its backbone computes what ``backbone`` does."""
    library: str = ""
    """timm or torchvision, where the format requires one of its networks."""
    sees_whole_images: bool = False
    """Whether the images it is trained and tested on are in memory, from which nothing is cut off; of files the middle
    is taken."""

    @property
    def output(self) -> str:
        """The output: features [B, F] or logits [B, C]."""
        return "features" if self.classifier is None else "logits"

    def outputs(self, images: Tensor) -> Tensor:
        """The outputs for images in [0, 1], which every format must reproduce."""
        found: Tensor = self.module(images)
        return found

    @property
    def module(self) -> nn.Module:
        """Images in [0, 1] -> outputs."""
        return self.backbone if self.classifier is None else self.classifier

    def network(self) -> nn.Module:
        """The network in a file of weights: normalised images -> outputs, with the names of the format."""
        if self.classifier is None:
            return self.backbone.net
        if self.library:
            return headed_like(self.as_built, self.backbone.net, self.classifier.head)
        return HeadedNetwork(self.backbone.net, self.classifier.head)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of :meth:`network`, by their names in a file."""
        network = self.network()
        if isinstance(network, HeadedNetwork):
            return network.named_tensors()
        return dict(network.state_dict())

    def fresh_network(self) -> nn.Module:
        """The same network as a reader makes it, before the weights are loaded."""
        if self.classifier is None or not self.library:
            return build_backbone(self.architecture, self.backbone.channels).net
        return headed_network(self.as_built, len(self.classifier.class_names))

    @property
    def as_built(self) -> BackboneConfig:
        """The architecture with every argument that its library's own constructor needs, including the channels."""
        channels = self.backbone.channels
        if channels == 3 or not self.architecture.name.startswith("timm:"):
            return self.architecture
        options = {**self.architecture.options, "in_chans": channels}
        return self.architecture.model_copy(update={"options": options})

    @property
    def name(self) -> str:
        """The name of the network, without its library."""
        return self.architecture.name.rpartition(":")[2]

    def facts(self) -> dict[str, Any]:
        """The facts that a reader needs; only JSON values."""
        facts = {
            "format": EXPORT_FORMAT,
            "source": self.source,
            "image_size": self.image_size,
            "feature_dim": self.feature_dim,
            **normalisation_of(self.backbone).to_dict(),
            "architecture": _used_settings(self.architecture) | {"pretrained": False},
            "written_by": f"sdclr {sdclr.__version__}",
        }
        if self.classifier is not None:
            facts |= {
                "num_classes": len(self.classifier.class_names),
                "class_names": list(self.classifier.class_names),
                "temperature": self.classifier.temperature,
            }
        return facts | ({"load_with": code} if (code := self.code()) else {})

    def code(self) -> str:
        """Python code that makes the network of a library, ready for load_state_dict; empty for other networks."""
        library = self.architecture.name.rpartition(":")[0]
        options = self.as_built.options
        if library == "torchvision" and self.backbone.channels != 3:
            return ""  # its constructors only support 3 channels
        if self.classifier is not None and library:
            return headed_code(self.as_built, len(self.classifier.class_names))
        if library == "timm":
            words = "".join(f", {key}={value!r}" for key, value in options.items())
            return f'network = timm.create_model("{self.name}", num_classes=0{words})'
        if library != "torchvision":
            return ""
        return torchvision_code(self.name, options, self.backbone.net)

    def images(self, number: int) -> Tensor:
        """The same images at every call, [number, C, S, S] in [0, 1]."""
        generator = torch.Generator().manual_seed(0)
        dtype = next(self.backbone.parameters()).dtype
        shape = number, self.backbone.channels, self.image_size, self.image_size
        return torch.rand(shape, generator=generator).to(dtype)


def fitted_to_format(trained: Exported, row: ExportRow) -> Exported:
    """``trained`` as ``row`` writes it. Raises ConfigError that lists the formats that can hold the network."""
    fitted, problem = _as_the_library_has_it(trained, row.library)
    if fitted is not None:
        return fitted
    others = [
        one
        for one in EXPORTS.values()
        if _as_the_library_has_it(trained, one.library)[0] is not None
    ]
    raise ConfigError(
        f"--format {row.name} cannot hold this network, {_words(trained.architecture)}: {problem}. "
        f"Formats that can: {', '.join(one.name for one in others)}."
    )


def _used_settings(architecture: BackboneConfig) -> dict[str, Any]:
    """The settings without those that a network of its kind does not have, such as the width of timm's."""
    unused = settings_without_effect(architecture.name)
    return {name: value for name, value in architecture.to_dict().items() if name not in unused}


def _words(architecture: BackboneConfig) -> str:
    if architecture.is_ours:
        return (
            f"{architecture.name} with backbone.width={architecture.width} "
            f"backbone.stem={architecture.stem}"
        )
    options = f" with backbone.options={architecture.options}" if architecture.options else ""
    return f"{shown(architecture.name)}{options}"


def _as_the_library_has_it(trained: Exported, library: str) -> tuple[Exported | None, str]:
    """The same network as one of the library's, its head included, or why there is none."""
    fitted, problem = _in_library(trained, library)
    if fitted is None or fitted.classifier is None or not library:
        return fitted, problem
    fitted = replace(fitted, library=library)
    try:
        network = fitted.network().eval()
    except NoSuchHead as error:
        return None, f"with a classifier, {error}"
    images = fitted.images(2)
    constants = normalisation_of(fitted.backbone)
    mean, std = (
        torch.tensor(one, dtype=images.dtype).view(1, -1, 1, 1)
        for one in (constants.mean, constants.std)
    )
    with torch.no_grad():
        found = network((images - mean) / std)
        if difference(found, trained.outputs(images)) > 1e-5:
            return None, f"the classifier of {library}'s {fitted.name} computes something else"
    return fitted, ""


def _in_library(trained: Exported, library: str) -> tuple[Exported | None, str]:
    """The same network as one of the library's, or why there is none."""
    architecture = trained.architecture
    theirs, _, name = architecture.name.rpartition(":")
    if library == "torchvision" and trained.backbone.channels != 3:
        channels = trained.backbone.channels
        return None, f"torchvision's networks take 3 channels, and this one takes {channels}"
    if library in ("", theirs):
        return trained, ""
    if not theirs and not architecture.is_ours:
        return None, f"it is not one of {library}'s"
    twin = BackboneConfig(name=f"{library}:{name}")
    if theirs and architecture.options:
        return None, f"{library} does not take its options"
    try:
        with default_generators(0, torch.device("cpu")):
            network = build_backbone(twin, trained.backbone.channels).net.to(
                next(trained.backbone.parameters()).dtype
            )
        load_strictly(network, trained.backbone.net.state_dict(), "it")
        same = _equal_features(network.eval(), trained)
    except ConfigError:
        return None, f"{library} has no {name}"
    except CheckpointError:
        return None, f"the {name} of {library} has other layers"
    if not same:
        return None, f"the {name} of {library} computes something else with the same weights"
    constants = normalisation_of(trained.backbone)
    backbone = Backbone(network, constants.mean, constants.std).eval()
    return replace(trained, backbone=backbone, architecture=twin), ""


@torch.no_grad()
def _equal_features(network: nn.Module, trained: Exported) -> bool:
    images = trained.images(2)
    return difference(network(images), trained.backbone.net(images)) <= 1e-5


def difference(one: Tensor, other: Tensor) -> float:
    """Largest difference as a share of the largest feature or of 1, if larger; infinite for different shapes."""
    if one.shape != other.shape:
        return float("inf")
    largest = max(1.0, float(other.abs().max()))
    found = float((one.double() - other.double()).abs().max()) / largest
    return found if found == found else float("inf")  # not a number


@torch.no_grad()
def require_same_features(read: Features, trained: Exported, row: ExportRow) -> None:
    """ConfigError unless the network read back gives the same features or logits, for batches of several sizes."""
    for number in (3, 1):  # other sizes than the traced one
        images = trained.images(number)
        found = difference(read(images), trained.outputs(images))
        if not found <= row.tolerance:
            raise ConfigError(
                f"--format {row.name}: read back, this network gives {trained.output} that differ by {found:.2g} of "
                f"the largest one, more than {row.tolerance:g}; nothing was kept. Choose another format."
            )
