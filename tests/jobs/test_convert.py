from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdclr import convert, load_backbone, pretrain, recipe
from sdclr.errors import ConfigError


def test_a_converted_file_loads_like_one_of_ours(tmp_path: Path, golden: Path) -> None:
    checkpoint = convert(golden / "upstream_sdclr_resnet18_w8.pt", tmp_path / "out.safetensors")
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(
            load_backbone(tmp_path / "out.safetensors")(images), checkpoint.backbone(images)
        )


@pytest.mark.journeys
def test_pre_training_starts_from_a_converted_file(tmp_path: Path, golden: Path) -> None:
    convert(golden / "upstream_sdclr_resnet18_w8.pt", tmp_path / "out.safetensors")
    values = {
        "backbone": {"name": "resnet18", "width": 8},
        "epochs": 1,
        "views.size": 8,
        "batch_size": 200,
    }
    config = recipe("digits_sdclr").with_values(
        values | {"weights": str(tmp_path / "out.safetensors")}
    )
    assert pretrain(config, tmp_path / "run").backbone_path.exists()


def test_an_output_that_cannot_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"named \*\.safetensors"):
        convert("nothing.pt", tmp_path / "out.pt")
    with pytest.raises(ConfigError, match="make it first"):
        convert("nothing.pt", tmp_path / "no" / "out.safetensors")
