"""Settings of one data set, backbone or method do not follow to another one, unless somebody asks for them."""

from __future__ import annotations

import pytest

from sdclr import recipe
from sdclr.backbones import BackboneConfig
from sdclr.data import DataConfig
from sdclr.data.table import SOURCES
from sdclr.errors import ConfigError
from sdclr.methods import SDCLRConfig, SimCLRConfig
from sdclr.recipes import RECIPES
from sdclr.settings import PretrainConfig


@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:resnet18", "custom"])
def test_every_recipe_takes_another_network_without_the_settings_of_its_own(name: str) -> None:
    for one in RECIPES:
        assert recipe(one).with_overrides([f"backbone.name={name}"]).backbone == BackboneConfig(
            name=name
        )


@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:resnet18", "custom"])
@pytest.mark.parametrize(
    "setting", ["backbone.width=64", "backbone.width=8", "backbone.stem=small"]
)
def test_a_setting_that_was_given_and_does_not_apply_is_an_error(name: str, setting: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"{setting.partition('=')[0]} applies to our ResNets only.*{name}"
    ):
        recipe("digits_sdclr").with_overrides([setting, f"backbone.name={name}"])
    other = recipe("digits_sdclr").with_overrides([f"backbone.name={name}"])
    with pytest.raises(ConfigError, match="applies to our ResNets only"):
        other.with_overrides([setting])


def test_options_of_a_network_do_not_follow_to_ours() -> None:
    vit = recipe("digits_sdclr").with_values(
        {"backbone.name": "timm:test_vit", "backbone.options": {"depth": 1}}
    )
    assert vit.with_values({"epochs": 1}).backbone == vit.backbone
    assert vit.with_values({"backbone.name": "resnet18"}).backbone == BackboneConfig(
        name="resnet18"
    )
    with pytest.raises(ConfigError, match=r"backbone\.options applies to"):
        vit.with_values({"backbone.name": "resnet18", "backbone.options": {"depth": 1}})


def test_another_method_does_not_inherit_what_it_does_not_know() -> None:
    sdclr = recipe("digits_sdclr").with_values({"method.temperature": 0.5})
    simclr = sdclr.with_values({"method.name": "simclr"})
    assert type(simclr.method) is SimCLRConfig
    assert simclr.method == SimCLRConfig(), "what suits one need not suit the other"
    assert isinstance(simclr.with_values({"method.name": "sdclr"}).method, SDCLRConfig)
    with pytest.raises(ConfigError, match=r"method\.prune_ratio is not a setting"):
        sdclr.with_values({"method.name": "simclr", "method.prune_ratio": 0.5})


@pytest.mark.parametrize("name", SOURCES)
def test_every_recipe_takes_another_data_set_without_the_settings_of_its_own(name: str) -> None:
    for one in RECIPES:
        given = recipe(one)
        assert given.with_values({"data.name": name}).data.subset == given.data.subset


def test_another_data_set_does_not_inherit_what_does_not_suit_it() -> None:
    digits = recipe("digits_sdclr")
    images = digits.with_values({"data.name": "images", "data.labels": "folders"}).data
    assert (images.imbalance_ratio, images.validation_per_class, images.labels) == (
        100,
        0,
        "folders",
    )
    assert images.exif_rotation is False, "as in the reference, whose recipe it is"
    arrays = digits.with_values({"data.name": "arrays"}).data
    assert arrays.imbalance_ratio == digits.data.imbalance_ratio, "its splits are generated too"
    own = PretrainConfig.parse(
        {"data": {"name": "images", "path": "x"}, "method": {"name": "simclr"}}
    )
    back = own.with_values({"data.store": "y", "data.exclude": "z"}).with_values(
        {"data.name": "digits"}
    )
    assert back.data == DataConfig(name="digits")
    with pytest.raises(ConfigError, match="imbalance_ratio=20"):
        digits.with_values({"data.name": "images", "data.imbalance_ratio": 20})


@pytest.mark.parametrize("name", [[], {}, 5, None])
@pytest.mark.parametrize("setting", ["data.name", "method.name", "backbone.name"])
def test_a_name_that_is_no_text_is_a_clear_error(setting: str, name: object) -> None:
    with pytest.raises(ConfigError, match=setting):
        recipe("digits_sdclr").with_values({setting: name})
