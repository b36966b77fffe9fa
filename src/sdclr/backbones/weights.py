"""Backbones on disk: ``backbone.safetensors`` holds the stock network's plain keys, its metadata all the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.backbones.backbone import Backbone
from sdclr.checkpoint import check_fit, load_strictly, read_tensors, write_tensors
from sdclr.errors import CheckpointError, ConfigError, MissingInputError

FORMAT = "sdclr-backbone-1"


def save_backbone(path: Path, backbone: Backbone, architecture: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write ``backbone.net`` with its architecture and input normalisation."""
    normalisation = {"mean": backbone.mean.flatten().tolist(), "std": backbone.std.flatten().tolist()}
    facts = {"format": FORMAT, "architecture": architecture, "normalisation": normalisation} | facts
    write_tensors(path, backbone.net.state_dict(), facts)


def read_backbone(source: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a run folder's backbone or of a backbone file."""
    path = Path(source)
    if path.is_dir():
        path = path / "backbone.safetensors"
        if not path.is_file():
            raise MissingInputError(f"{path} does not exist: the run is not finished, or {source} is not a run folder.")
    tensors, facts = read_tensors(path)
    if facts.get("format") != FORMAT:
        raise CheckpointError(f"{path} holds no backbone; give a run folder or its backbone.safetensors.")
    return tensors, facts


def load_backbone(source: Path | str, network: nn.Module | None = None) -> Backbone:
    """The trained target backbone in eval mode: images [B, 3, S, S] in [0, 1] -> features [B, F].

    ``source``: a run folder or a backbone.safetensors. ``network``: your own module, for a run with a custom one.
    Raises MissingInputError or CheckpointError; a partial match is never accepted.
    """
    tensors, facts = read_backbone(source)
    try:
        architecture = BackboneConfig.parse(facts["architecture"])
        mean, std = (torch.tensor(facts["normalisation"][name], dtype=torch.float32) for name in ("mean", "std"))
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{source} does not describe its network: {error}") from None
    if mean.shape != (3,) or std.shape != (3,):
        raise CheckpointError(f"{source} does not describe its network: mean and std must be 3 numbers each.")
    if network is None and architecture.name == "custom":
        raise ConfigError(f"{source} was trained with your own network; pass it: load_backbone(..., network=...).")
    if network is None:
        with torch.device("meta"):  # a name and a shape cost nothing; what they claim may not fit any memory
            claimed = _described(architecture, source).net.state_dict()
        check_fit(claimed, tensors, str(source))
        network = _described(architecture, source).net
    backbone = Backbone(network, mean.tolist(), std.tolist())
    load_strictly(backbone.net, tensors, str(source))
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    return backbone.to(dtype).eval()


def load_weights(backbone: Backbone, source: Path | str) -> None:
    """Start a new run's backbone from trained weights of the same architecture."""
    tensors, _ = read_backbone(source)
    load_strictly(backbone.net, tensors, str(source))


def _described(architecture: BackboneConfig, source: Path | str) -> Backbone:
    try:
        return build_backbone(architecture.model_copy(update={"pretrained": False}))
    except Exception as error:  # networks of others fail in their own ways at settings that nobody would choose
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{source} does not describe its network: {said}") from None
