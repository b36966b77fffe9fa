"""Every stock network that can be named is saved and loaded back with the same features, at a size of own photos.

A handful on every run of the tests; all names of torchvision and one network of every module of timm behind ``slow``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision

from sdclr import load_backbone
from sdclr.backbones import BackboneConfig, build_backbone, measure_feature_dim
from sdclr.backbones import weights as backbone_files
from sdclr.backbones.image_sizes import fitted_to
from sdclr.backbones.weights import require_loadable, save_backbone
from sdclr.errors import CheckpointError, ConfigError

FEW = [
    "torchvision:regnet_y_400mf",
    "torchvision:mnasnet0_5",
    "torchvision:squeezenet1_1",
    "torchvision:mobilenet_v3_small",
    "timm:test_convnext",
    "timm:test_vit",
    "timm:deit_tiny_patch16_224",
    "timm:regnetx_002",
]

TORCHVISION = torchvision.models.list_models(module=torchvision.models)
OTHER_SIZES = {
    "torchvision:vit_h_14": 224,  # patches of 14 px: own photos get views of 84 px
    "timm:halonet_h1": 256,  # attention over blocks, which the maps must be cut into
    "timm:efficientformer_l1": 224,  # attention over a grid of 7 x 7 that nothing changes
}
"""Networks that take no images of 96 x 96 px -> a size they take."""
NOT_TRIED = {
    "torchvision:regnet_y_128gf": "645 million weights",
    "torchvision:vit_h_14": "632 million weights",
    "timm:deepseek_vit_412m": "412 million weights",
    "timm:gemma4_vit_167m": "167 million weights",
}
"""Networks that the sweep leaves out -> why: three copies of each would lie in a test machine's memory."""


def returns_the_same(name: str, folder: Path, size: int = 96) -> None:
    """Build, try the way back as a run does, save, load: the features are those of before."""
    config = fitted_to(BackboneConfig(name=name), OTHER_SIZES.get(name, size))
    side = OTHER_SIZES.get(name, size)
    torch.manual_seed(0)
    backbone = build_backbone(config)
    feature_dim = measure_feature_dim(backbone, side)
    require_loadable(backbone, config, side)
    path = folder / "b.safetensors"
    save_backbone(
        path, backbone, config.to_dict(), {"image_size": side, "feature_dim": feature_dim}
    )
    loaded = load_backbone(path)
    path.unlink()
    images = torch.rand(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), backbone.eval()(images))
    assert loaded(images).shape == (2, feature_dim)


@pytest.mark.journeys
@pytest.mark.parametrize("name", FEW)
def test_a_handful_of_networks_return_as_they_were(name: str, tmp_path: Path) -> None:
    returns_the_same(name, tmp_path, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_every_classification_network_of_torchvision_returns_as_it_was(
    name: str, tmp_path: Path
) -> None:
    if why := NOT_TRIED.get(f"torchvision:{name}"):
        pytest.skip(why)
    returns_the_same(f"torchvision:{name}", tmp_path)


def smallest(module: str) -> str:
    """The network of a module of timm with the fewest weights; of its first eight, where it has more."""
    sizes: dict[str, int] = {}
    for name in timm.list_models(module=module)[:8]:
        with torch.device("meta"):
            sizes[name] = sum(weight.numel() for weight in timm.create_model(name).parameters())
    return min(sizes, key=sizes.__getitem__)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # timm's own
@pytest.mark.parametrize("module", timm.list_modules())
def test_a_network_of_every_family_of_timm_returns_as_it_was(module: str, tmp_path: Path) -> None:
    name = f"timm:{smallest(module)}"
    if why := NOT_TRIED.get(name):
        pytest.skip(why)
    returns_the_same(name, tmp_path)


@pytest.fixture
def regnet(tmp_path: Path) -> Path:
    config = BackboneConfig(name="torchvision:regnet_y_400mf")
    save_backbone(tmp_path / "b.safetensors", build_backbone(config), config.to_dict(), {})
    return tmp_path / "b.safetensors"


def test_a_network_that_cannot_be_built_without_data_is_given_up_once_it_outgrows_its_file(
    regnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone_files, "FREE_ELEMENTS", -1)
    with pytest.raises(CheckpointError, match=r"more than .* parameters"):
        load_backbone(regnet)
    monkeypatch.undo()
    monkeypatch.setattr(backbone_files, "FREE_MODULES", -10_000)
    with pytest.raises(CheckpointError, match=r"more than .* layers"):
        load_backbone(regnet)


@pytest.mark.parametrize("name", ["timm:test_resnet", "resnet10"])
def test_any_network_loads_where_nothing_can_be_built_without_data(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with timm before 1.0.22, which reads numbers off tensors while it builds."""
    config = BackboneConfig(name=name)
    backbone, real = build_backbone(config).eval(), build_backbone
    save_backbone(tmp_path / "b.safetensors", backbone, config.to_dict(), {})

    def reads_numbers(config: BackboneConfig, channels: int) -> Any:
        torch.linspace(0, 1, 3).tolist()
        return real(config, channels)

    monkeypatch.setattr(backbone_files, "build_backbone", reads_numbers)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_backbone(tmp_path / "b.safetensors")(images), backbone(images))
    save_backbone(tmp_path / "x.safetensors", backbone, {"name": "timm:no_such_network"}, {})
    with pytest.raises(CheckpointError, match="does not describe its network"):
        load_backbone(tmp_path / "x.safetensors")


def test_what_a_file_cannot_describe_is_found_before_it_is_needed() -> None:
    config = BackboneConfig(name="timm:test_resnet", options={"drop_rate": 0.0})
    backbone = build_backbone(config)
    require_loadable(backbone, config, 32)
    with pytest.raises(ConfigError, match=r"timm:test_resnet.*loaded again.*does not fit"):
        require_loadable(
            backbone, config.model_copy(update={"options": {"layers": [1, 1, 1, 2]}}), 32
        )
    unwritable = BackboneConfig(
        name="timm:test_resnet", options={"norm_layer": torch.nn.BatchNorm2d}
    )
    with pytest.raises(ConfigError, match=r"timm:test_resnet.*loaded again"):
        require_loadable(build_backbone(unwritable), unwritable, 32)
