"""A classifier goes out with its head: another program gets the same logits, and starts a new run without the head."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from read_exports import READERS, SIZE, formats, images
from sdclr import export, load_classifier, recipe
from sdclr.any_progress import NoProgress
from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.backbones.backbone import measure_feature_dim
from sdclr.backbones.classifier import Classifier, save_classifier
from sdclr.backbones.exports.table import EXPORTS
from sdclr.errors import ConfigError
from sdclr.jobs.pretrain.starting_weights import load_starting_weights
from slow_variants import slow

NAMES = ("cat", "dog|small", "=yak", "é")
NAMED_AS = {"huggingface": "label_names", "torch-export": None}
"""What the classes are called in an export, by format; class_names elsewhere."""


def model(folder: Path, name: str, **values: Any) -> Path:
    """A model folder whose weights, running statistics, head and normalisation are nobody's defaults."""
    torch.manual_seed(0)
    constants = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    config = BackboneConfig.parse({"name": name, "normalisation": constants} | values)
    backbone = build_backbone(config)
    for key, tensor in backbone.net.state_dict().items():
        if key.endswith("running_mean"):
            tensor.uniform_(-0.1, 0.1)
        elif key.endswith("running_var"):
            tensor.uniform_(0.8, 1.2)
    backbone.image_size, backbone.feature_dim = SIZE, measure_feature_dim(backbone, SIZE)
    head = nn.Linear(backbone.feature_dim, len(NAMES))
    nn.init.normal_(head.bias)
    folder.mkdir()
    (folder / "finetune.json").write_text('{"settings": {"mode": "full"}, "num_train": 12}')
    (folder / "model.json").write_text('{"validation": null, "calibration": {}}')
    save_classifier(folder, Classifier(backbone.eval(), head, NAMES, 1.7), config.to_dict(), {})
    return folder


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network that all formats can hold."""
    return model(tmp_path_factory.mktemp("models") / "m", "resnet18", stem="large")


def logits(source: Path) -> Tensor:
    with torch.no_grad():
        return load_classifier(source)(images())


@pytest.mark.tools
@pytest.mark.parametrize("format", list(formats()))
def test_another_program_computes_the_same_logits(
    format: str, resnet18: Path, tmp_path: Path
) -> None:
    row = EXPORTS[format]
    out = export(resnet18, format, tmp_path / f"theirs{row.suffix}")
    with torch.no_grad():
        (found, facts), wanted = READERS[format](out), logits(resnet18)
    if (key := NAMED_AS.get(format, "class_names")) is not None:
        assert list(facts[key]) == list(NAMES)
    assert facts.get("temperature", 1.7) == 1.7
    assert facts.get("output_names", ["logits"]) == ["logits"]
    assert facts.get("num_classes", len(NAMES)) == len(NAMES)
    assert wanted.shape == (3, len(NAMES))
    torch.testing.assert_close(found, wanted, rtol=0, atol=row.tolerance)


@pytest.mark.tools
@pytest.mark.parametrize("format", ["timm", "torchvision", "safetensors", "huggingface"])
def test_a_new_run_starts_from_the_backbone_and_leaves_the_head(
    format: str, resnet18: Path, tmp_path: Path
) -> None:
    out = export(resnet18, format, tmp_path / f"theirs{EXPORTS[format].suffix}")
    values = {"name": "resnet18", "stem": "large", "width": 64}
    config = recipe("digits_simclr").with_values({"weights": str(out), "backbone": values})
    backbone = build_backbone(config.backbone)
    load_starting_weights(backbone, config, config.backbone, NoProgress())
    with torch.no_grad():
        found, wanted = backbone.eval()(images()), load_classifier(resnet18).backbone(images())
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.tools
@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("torchvision:resnet18", {}, {"timm", "torchvision", "huggingface"}),
        slow("timm:efficientnet_b0", {}, {"timm", "huggingface"}),
        slow("torchvision:mobilenet_v2", {}, {"torchvision"}),
        ("torchvision:squeezenet1_1", {}, set()),
        # a part of its features is called classifier.0
        ("torchvision:mobilenet_v3_small", {}, {"torchvision"}),
        slow("torchvision:convnext_tiny", {}, {"torchvision"}),
        ("timm:test_vit", {"options": {"img_size": SIZE}}, {"timm", "huggingface"}),
        ("resnet10", {"width": 4}, set()),
    ],
)
def test_the_networks_of_a_library_go_with_their_head_where_they_compute_the_same(
    name: str, values: dict[str, Any], wanted: set[str], tmp_path: Path
) -> None:
    source, held, said = model(tmp_path / "m", name, **values), set[str](), list[str]()
    for format in ("timm", "torchvision", "huggingface"):
        try:
            out = export(source, format, tmp_path / f"{format}{EXPORTS[format].suffix}")
        except ConfigError as error:
            said.append(str(error))
            continue
        held.add(format)
        with torch.no_grad():
            torch.testing.assert_close(
                READERS[format](out).output, logits(source), rtol=0, atol=1e-5
            )
    assert held == wanted
    for words in said:
        assert "Formats that can: " in words
        assert "safetensors, torch-export, onnx" in words
    for format in ("safetensors", "torch-export"):
        out = export(source, format, tmp_path / f"own{EXPORTS[format].suffix}")
        with torch.no_grad():
            torch.testing.assert_close(
                READERS[format](out).output, logits(source), rtol=0, atol=1e-5
            )


@pytest.mark.journeys
def test_the_card_of_a_classifier_names_its_classes_and_its_code_runs(
    resnet18: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export(resnet18, "huggingface", tmp_path / "folder")
    card = (out / "README.md").read_text()
    assert "all layers were trained" in card
    assert "12 labelled images" in card
    (code,) = re.findall(r"^```python\n(.*?)^```", card, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 50), (200, 30, 90)).save("a.jpg")
    names: dict[str, Any] = {}
    exec(code.replace("PATH", str(out), 1), names)
    assert names["label"] in NAMES
    assert float(names["probabilities"].sum()) == pytest.approx(1.0)
    assert "pipeline_tag: image-classification" in card
    assert r"cat, dog\|small, =yak, é" in card
    assert "/ 1.7)" in card
    assert "how good this classifier is, is not known" in card
    assert str(tmp_path) not in card
    assert sorted(os.listdir(out)) == ["README.md", "config.json", "model.safetensors"]
