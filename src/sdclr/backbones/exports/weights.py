"""Exports that only hold weights: a state_dict of torch with a JSON file next to it, and plain safetensors."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sdclr.backbones.exports.headed import HeadedNetwork
from sdclr.backbones.exports.network import Exported, Features
from sdclr.compute.process_state import default_generators
from sdclr.storage.named_tensors import load_strictly


def write_state_dict(trained: Exported, folder: Path, stem: str) -> None:
    # in memory first: on a full disk torch's own writer gives another reason
    content = io.BytesIO()
    torch.save(tensors_of(trained), content)
    (folder / f"{stem}.pth").write_bytes(content.getbuffer())
    text = json.dumps(trained.facts(), indent=1) + "\n"
    (folder / f"{stem}.json").write_text(text, encoding="utf-8")


def read_state_dict(trained: Exported, folder: Path, stem: str) -> Features:
    """Read as a user would: a new network of the library, the tensors, and the constants of the JSON file."""
    facts = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
    with default_generators(0, torch.device("cpu")):
        network = trained.fresh_network()
    tensors = torch.load(folder / f"{stem}.pth", weights_only=True)
    load_strictly(network, tensors, stem)
    return normalised(network, facts["mean"], facts["std"], tensors)


def write_safetensors(trained: Exported, folder: Path, stem: str) -> None:
    facts = trained.facts()
    # Hugging Face's tools require "pt"; our own format is under another key
    metadata = as_texts(facts) | {"format": "pt", "sdclr_format": facts["format"]}
    # not save_file, whose files only their owner may read
    (folder / f"{stem}.safetensors").write_bytes(save(tensors_of(trained), metadata))


def read_safetensors(trained: Exported, folder: Path, stem: str) -> Features:
    path = folder / f"{stem}.safetensors"
    network, tensors = copy.deepcopy(trained.network()), load_file(path)
    if isinstance(network, HeadedNetwork):
        network.load_tensors(tensors, stem)
    else:
        load_strictly(network, tensors, stem)
    with safetensors.safe_open(path, "pt") as file:
        facts = file.metadata()
    return normalised(network, json.loads(facts["mean"]), json.loads(facts["std"]), tensors)


def as_texts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Values as strings, in JSON where they are not: metadata of files only hold strings."""
    return {key: one if isinstance(one, str) else json.dumps(one) for key, one in facts.items()}


def tensors_of(trained: Exported) -> dict[str, Tensor]:
    """A copy of each tensor: safetensors refuses tensors that share memory."""
    return {name: one.detach().clone().contiguous() for name, one in trained.tensors().items()}


def normalised(
    network: nn.Module, mean: list[float], std: list[float], tensors: dict[str, Any]
) -> Features:
    """Images in [0, 1] -> features, normalised with these constants, in the precision of the weights."""
    floats = [tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()]
    network = network.to(floats[0]).eval()
    subtracted = torch.tensor(mean, dtype=floats[0]).view(1, -1, 1, 1)
    divided_by = torch.tensor(std, dtype=floats[0]).view(1, -1, 1, 1)
    return lambda images: network((images - subtracted) / divided_by)
