"""What is exported: a trained backbone, and the network of timm or torchvision that computes the same.

Whether a library has such a network is tried, not assumed: it takes all the tensors, and gives the same features.
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
from sdclr.backbones.config import BackboneConfig
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
    """A backbone in eval mode on the CPU, and the facts that go with it."""

    backbone: Backbone
    architecture: BackboneConfig
    """Of the network whose names the tensors have in the file: a library's, where the format asks for one."""
    image_size: int
    feature_dim: int
    source: str
    """The name of the run or the file it comes from; no path, as files are handed on."""
    card: str = field(default="", repr=False)
    """The model card, for formats that have one."""

    @property
    def name(self) -> str:
        """The name of the network, without its library."""
        return self.architecture.name.rpartition(":")[2]

    def facts(self) -> dict[str, Any]:
        """What a reader needs to know; JSON values alone."""
        facts = {
            "format": EXPORT_FORMAT,
            "source": self.source,
            "image_size": self.image_size,
            "feature_dim": self.feature_dim,
            **normalisation_of(self.backbone).to_dict(),
            "architecture": self.architecture.to_dict() | {"pretrained": False},
            "written_by": f"sdclr {sdclr.__version__}",
        }
        return facts | ({"load_with": code} if (code := self.code()) else {})

    def code(self) -> str:
        """Python that makes the network of a library, ready for load_state_dict; empty for other networks."""
        library = self.architecture.name.rpartition(":")[0]
        options = self.architecture.options
        if library == "timm":
            words = "".join(f", {key}={value!r}" for key, value in options.items())
            return f'network = timm.create_model("{self.name}", num_classes=0{words})'
        if library != "torchvision":
            return ""
        return torchvision_code(self.name, options, self.backbone.net)

    def images(self, number: int) -> Tensor:
        """The same images at every call, [number, 3, S, S] in [0, 1]."""
        generator = torch.Generator().manual_seed(0)
        dtype = next(self.backbone.parameters()).dtype
        return torch.rand(number, 3, self.image_size, self.image_size, generator=generator).to(
            dtype
        )


def fitted_to_format(trained: Exported, row: ExportRow) -> Exported:
    """``trained`` as ``row`` writes it. Raises ConfigError that names the formats that can hold the network."""
    fitted, problem = _in_library(trained, row.library)
    if fitted is not None:
        return fitted
    others = [one for one in EXPORTS.values() if _in_library(trained, one.library)[0] is not None]
    raise ConfigError(
        f"--format {row.name} cannot hold this network, {_words(trained.architecture)}: {problem}. "
        f"Formats that can: {', '.join(one.name for one in others)}."
    )


def _words(architecture: BackboneConfig) -> str:
    if architecture.is_ours:
        return (
            f"{architecture.name} with backbone.width={architecture.width} "
            f"backbone.stem={architecture.stem}"
        )
    options = f" with backbone.options={architecture.options}" if architecture.options else ""
    return f"{shown(architecture.name)}{options}"


def _in_library(trained: Exported, library: str) -> tuple[Exported | None, str]:
    """The same network as one of the library's, or why there is none."""
    architecture = trained.architecture
    theirs, _, name = architecture.name.rpartition(":")
    if library in ("", theirs):
        return trained, ""
    if not theirs and not architecture.is_ours:
        return None, f"it is none of {library}'s"
    twin = BackboneConfig(name=f"{library}:{name}")
    if theirs and architecture.options:
        return None, f"{library} does not take its options"
    try:
        with default_generators(0, torch.device("cpu")):
            network = build_backbone(twin).net.to(next(trained.backbone.parameters()).dtype)
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
    """Largest difference as a share of the largest feature, of 1 where that is smaller; infinite for other shapes."""
    if one.shape != other.shape:
        return float("inf")
    largest = max(1.0, float(other.abs().max()))
    found = float((one.double() - other.double()).abs().max()) / largest
    return found if found == found else float("inf")  # not a number


@torch.no_grad()
def require_same_features(read: Features, trained: Exported, row: ExportRow) -> None:
    """ConfigError unless what was read back gives the backbone's features, for batches of several sizes."""
    for number in (3, 1):  # traced was another number
        images = trained.images(number)
        found = difference(read(images), trained.backbone(images))
        if not found <= row.tolerance:
            raise ConfigError(
                f"--format {row.name}: read back, this network gives features that differ by {found:.2g} of the "
                f"largest one, more than {row.tolerance:g}; nothing was kept. Choose another format."
            )
