"""Networks that are built for one image size get it by themselves; the others stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdclr.backbones import BackboneConfig, build_backbone, measure_feature_dim
from sdclr.backbones.image_sizes import fitted_to, named_sizes
from sdclr.errors import ConfigError
from slow_variants import slow


@pytest.mark.parametrize(
    ("name", "size", "added"),
    [
        ("timm:deit_tiny_patch16_224", 96, {"img_size": 96}),
        slow("timm:vit_small_patch16_224", 96, {"img_size": 96}),
        slow("timm:swin_tiny_patch4_window7_224", 96, {"img_size": 96}),
        ("timm:test_resnet", 96, {}),
        ("timm:convnext_atto", 64, {}),
        ("torchvision:vit_b_16", 96, {"image_size": 96}),
        pytest.param(
            *("torchvision:maxvit_t", 96, {"input_size": [96, 96], "partition_size": 3}),
            marks=pytest.mark.journeys,
        ),
        slow("torchvision:maxvit_t", 224, {}),
        ("torchvision:swin_t", 96, {}),
        slow("torchvision:regnet_y_400mf", 96, {}),
        ("resnet18", 96, {}),
        ("custom", 96, {}),
    ],
)
def test_a_network_for_one_size_gets_the_size_of_the_views(
    name: str, size: int, added: dict[str, Any]
) -> None:
    config = BackboneConfig(name=name)
    fitted = fitted_to(config, size)
    assert fitted == config.model_copy(update={"options": added})
    assert BackboneConfig.parse(fitted.to_dict()) == fitted, "it survives the way through a file"
    if added:
        with torch.device("meta"):
            assert measure_feature_dim(build_backbone(fitted), size) > 0


def test_a_size_that_the_user_gave_stays_and_other_options_are_kept() -> None:
    given = BackboneConfig(name="timm:test_vit", options={"img_size": 64})
    assert fitted_to(given, 96) is given
    assert named_sizes(given) == [64]
    shallow = BackboneConfig(name="timm:vit_tiny_patch16_224", options={"depth": 1})
    assert fitted_to(shallow, 32).options == {"depth": 1, "img_size": 32}
    assert named_sizes(shallow) == []


def test_looking_for_the_size_leaves_the_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    fitted_to(BackboneConfig(name="timm:test_vit"), 96)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.journeys
def test_a_network_that_takes_no_such_images_is_an_error_that_names_the_size() -> None:
    with pytest.raises(ConfigError, match=r"96 x 96 px.*views\.size"):
        fitted_to(BackboneConfig(name="timm:efficientformer_l1"), 96)


def test_a_network_that_cannot_be_built_without_data_is_tried_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sdclr.backbones import image_sizes

    real, devices = build_backbone, []

    def as_in_an_older_timm(config: BackboneConfig) -> Any:
        devices.append(torch.empty(0).device.type)
        if devices[-1] == "meta":
            raise NotImplementedError("Cannot copy out of meta tensor")
        return real(config.model_copy(update={"options": config.options | {"depth": 1}}))

    monkeypatch.setattr(image_sizes, "build_backbone", as_in_an_older_timm)
    assert fitted_to(BackboneConfig(name="timm:deit_tiny_patch16_224"), 96).options == {
        "img_size": 96
    }
    assert "cpu" in devices
