"""What another program computes from an exported backbone or classifier, and what the file says of itself. No tests."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor

from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.backbones.exports.table import EXPORTS

SIZE = 32
needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason='pip install "sdclr[onnx]"'
)


class Found(NamedTuple):
    """Features, or of a classifier logits, of :func:`images`; and what the export says of itself."""

    output: Tensor
    facts: Mapping[str, Any]


def images(number: int = 3) -> Tensor:
    return torch.rand(number, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def normalised(facts: Mapping[str, Any]) -> Tensor:
    mean, std = (torch.tensor(facts[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (images() - mean) / std


def read_state_dict(out: Path) -> Found:
    """As the JSON file beside it says."""
    facts = json.loads(out.with_suffix(".json").read_text())
    names: dict[str, Any] = {"timm": timm, "torchvision": torchvision, "torch": torch}
    exec(facts["load_with"], names)
    network = names["network"]
    network.load_state_dict(torch.load(out, weights_only=True), strict=True)
    return Found(network.eval()(normalised(facts)), facts)


def read_safetensors(out: Path) -> Found:
    with safetensors.safe_open(out, "pt") as file:
        facts = _plain(file.metadata())
    tensors = load_file(out)
    head = [tensors.pop(f"classifier.{name}", None) for name in ("weight", "bias")]
    network = build_backbone(BackboneConfig.parse(facts["architecture"])).net
    network.load_state_dict(tensors, strict=True)
    features = network.eval()(normalised(facts))
    weight, bias = head
    return Found(features if weight is None else features @ weight.T + bias, facts)


def read_program(out: Path) -> Found:
    return Found(torch.export.load(out).module()(images()), {})


def read_onnx(out: Path) -> Found:
    import onnxruntime

    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, SIZE, SIZE]
    (output,) = session.run(None, {"images": images().numpy()})
    names = {"output_names": [one.name for one in session.get_outputs()]}
    facts = _plain(session.get_modelmeta().custom_metadata_map)
    return Found(torch.from_numpy(output), facts | names)


def read_huggingface(out: Path) -> Found:
    network = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    output = network(normalised(timm.data.resolve_model_data_config(network)))
    facts = {"num_classes": network.num_classes}
    return Found(output, facts | network.pretrained_cfg)


READERS: dict[str, Callable[[Path], Found]] = {
    "timm": read_state_dict,
    "torchvision": read_state_dict,
    "safetensors": read_safetensors,
    "torch-export": read_program,
    "onnx": read_onnx,
    "huggingface": read_huggingface,
}


def formats() -> Iterator[Any]:
    """One parameter a format."""
    for name, row in EXPORTS.items():
        yield pytest.param(name, marks=[needs_onnx] if row.extra else [])


def _plain(metadata: Mapping[str, str]) -> dict[str, Any]:
    """JSON where it is JSON, else the text."""
    facts: dict[str, Any] = dict(metadata)
    for key, text in metadata.items():
        with contextlib.suppress(ValueError):
            facts[key] = json.loads(text)
    return facts
