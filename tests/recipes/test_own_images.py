"""Settings chosen for images nobody has tried: each has a reason, each fits, and too few images are refused."""

from __future__ import annotations

from typing import Any

import pytest

from sdclr.backbones import BackboneConfig
from sdclr.data import DataConfig, steps_per_epoch
from sdclr.errors import ConfigError, DataError
from sdclr.methods import SimCLRConfig
from sdclr.recipes.own_images import Choice, advice, own_images
from sdclr.settings import PretrainConfig

DATA = DataConfig(name="arrays", path="photos.npz", subset="all")


def choose(
    num_images: int,
    side: int = 400,
    device: str = "cpu",
    free: float = 16e9,
    trained: BackboneConfig | None = None,
    bf16_speedup: float | None = None,
    **given: Any,
) -> tuple[PretrainConfig, dict[str, Choice]]:
    """``given`` with __ for a dot."""
    config, choices = own_images(
        DATA,
        num_images=num_images,
        typical_side=side,
        device=device,
        free_memory_bytes=int(free),
        given={name.replace("__", "."): value for name, value in given.items()},
        trained=trained,
        bf16_speedup=bf16_speedup,
    )
    return config, {choice.setting: choice for choice in choices}


@pytest.mark.parametrize("num_images", [32, 33, 65, 129, 257, 513, 5_000, 1_000_001])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_choice_is_in_the_config_and_every_epoch_can_be_trained(
    num_images: int, device: str
) -> None:
    config, choices = choose(num_images, device=device)
    settings = config.to_dict()
    for name, choice in choices.items():
        section, _, key = name.rpartition(".")
        assert (settings[section][key] if section else settings[key]) == choice.value
        assert len(choice.reason) > 10
    assert steps_per_epoch(num_images, config.batch_size) >= 1, "no last batch of one image"
    assert config.batch_size <= num_images
    assert config.method.name == "sdclr"


def test_the_settings_follow_the_images_and_the_device() -> None:
    assert choose(1_000, side=28)[0].views.size == 32
    assert choose(1_000, side=28)[0].backbone.stem == "small"
    assert choose(1_000, side=400)[0].views.size == 96
    assert "a CPU is slow above 96" in choose(1_000, side=400)[1]["views.size"].reason
    assert choose(1_000, side=400, device="cuda", free=70e9)[0].views.size == 224
    assert choose(1_000, side=100, device="cuda")[0].views.size == 96, (
        "never larger than the images"
    )
    assert choose(200_000, device="cuda", free=70e9)[0].backbone.name == "resnet50"
    assert choose(2_000, device="cuda", free=70e9)[0].backbone.name == "resnet18"
    photographs, small = choose(1_000)[0], choose(1_000, side=32)[0]
    assert (photographs.views.blur, photographs.method.prune_ratio) == (0.5, 0.3)  # type: ignore[union-attr]
    assert (small.views.blur, small.method.prune_ratio) == (0.0, 0.9)  # type: ignore[union-attr]


def test_the_batch_is_the_largest_that_fits() -> None:
    assert choose(40)[0].batch_size == 40
    assert "all of the images" in choose(40)[1]["batch_size"].reason
    config, choices = choose(65, device="cpu")
    assert config.batch_size == 63, "64 would leave a last batch of one image"
    assert "would leave a last batch of one image" in choices["batch_size"].reason
    config, choices = choose(10_000, device="cuda", free=1e9)
    assert config.batch_size < 20
    assert "1.0 GB of memory are free" in choices["batch_size"].reason


def test_the_budget_is_of_steps_not_of_epochs() -> None:
    few, many = choose(100)[0], choose(10_000)[0]
    assert few.epochs * steps_per_epoch(100, few.batch_size) == pytest.approx(400, rel=0.1)
    assert many.epochs * steps_per_epoch(10_000, many.batch_size) == pytest.approx(400, rel=0.3)
    assert choose(1_000_000)[0].epochs == 1


def test_fewer_than_32_images_are_refused() -> None:
    with pytest.raises(DataError, match="holds 31 images; at least 32"):
        choose(31)


def test_few_images_from_scratch_are_warned_of() -> None:
    config = choose(500)[0]
    assert "pretrained=true" in (advice(config, 500) or "")
    assert advice(config, 50_000) is None
    assert advice(config.with_values({"backbone.pretrained": True}), 500) is None


def test_a_given_batch_size_decides_epochs_learning_rate_and_how_often_to_save() -> None:
    config, choices = choose(600, batch_size=16)
    assert config.epochs * steps_per_epoch(600, 16) == pytest.approx(400, rel=0.05)
    assert config.optimizer.learning_rate == pytest.approx(0.5 * 16 / 512)
    assert "batch_size" not in choices, "what the user gave is not explained"
    config, choices = choose(600, epochs=1000)
    assert config.checkpoint_every_epochs == 50
    assert "epochs" not in choices


def test_a_given_view_size_decides_stem_area_blur_prune_ratio_and_batch() -> None:
    config, choices = choose(1_000, views__size=32)
    assert (config.backbone.stem, config.views.area, config.views.blur) == (
        "small",
        (0.1, 1.0),
        0.0,
    )
    assert config.method.prune_ratio == 0.9  # type: ignore[union-attr]
    assert "views of 32 px" in choices["backbone.stem"].reason
    small, large = (
        choose(10_000, device="cuda", free=2e9, views__size=size)[0] for size in (128, 224)
    )
    assert small.batch_size > 2 * large.batch_size
    assert choose(1_000, views={"size": 32})[0] == config, "a section given at once is its settings"


def test_a_given_network_decides_stem_and_batch() -> None:
    config, choices = choose(1_000, side=32, backbone__name="timm:resnet18")
    assert config.backbone == BackboneConfig(name="timm:resnet18")
    assert "backbone.stem" not in choices
    config, choices = choose(1_000, side=32, backbone__pretrained=True)
    assert config.backbone.stem == "large"
    assert "trained on ImageNet" in choices["backbone.stem"].reason
    batches = [
        choose(10_000, device="cuda", free=4e9, backbone__name=name)[0].batch_size
        for name in ("resnet10", "resnet18", "resnet34", "resnet50", "torchvision:vgg16")
    ]
    assert batches == sorted(batches, reverse=True)
    assert len(set(batches)) == 5
    narrow = choose(10_000, device="cuda", free=4e9, backbone__width=16)[0].batch_size
    assert narrow > 3 * batches[1]
    double = choose(10_000, device="cuda", free=4e9, precision="fp64")[0].batch_size
    assert double == batches[1] // 2


def test_a_given_method_or_optimiser_brings_its_own_settings() -> None:
    config, choices = choose(1_000, method__name="simclr")
    assert config.method == SimCLRConfig()
    assert not any(name.startswith("method.") for name in choices)
    config, choices = choose(1_000, optimizer__name="adamw", batch_size=128)
    assert config.optimizer.learning_rate == pytest.approx(2.5e-4)
    assert "DINO" in choices["optimizer.learning_rate"].reason
    assert choose(1_000, method__random_share=0.5)[0].method.prune_ratio == 0.5  # type: ignore[union-attr]


def test_the_network_is_that_of_the_weights_a_run_starts_from() -> None:
    trained = BackboneConfig(name="resnet10", width=8, stem="small")
    config, choices = choose(1_000, trained=trained)
    assert config.backbone == trained
    assert "weights it starts from" in choices["backbone.width"].reason
    assert choose(1_000, trained=trained, backbone__name="resnet18")[0].backbone.width == 64


def test_a_given_setting_that_is_not_valid_is_named() -> None:
    for given, words in (
        ({"batch_size": "many"}, "batch_size"),
        ({"views__size": 1}, "views.size"),
        ({"method__name": "simclr", "method__prune_ratio": 0.5}, "prune_ratio is not a setting"),
        ({"method__name": 3}, "method"),
    ):
        with pytest.raises(ConfigError, match=words):
            choose(1_000, **given)


def test_linear_layers_are_pruned_too_where_they_hold_the_weights() -> None:
    config, choices = choose(1_000)
    assert config.method.prunable == "auto"  # type: ignore[union-attr]
    assert "linear layers" in choices["method.prunable"].reason
    assert "method.prunable" not in choose(1_000, method__prunable="conv")[1]
    assert "method.prunable" not in choose(1_000, method__name="simclr")[1]


@pytest.mark.parametrize("setting", ["stem", "width"])
def test_settings_of_our_resnets_are_left_out_for_other_networks_and_refused_when_given(
    setting: str,
) -> None:
    config, choices = choose(1_000, backbone__name="timm:test_resnet")
    assert config.backbone == BackboneConfig(name="timm:test_resnet")
    assert f"backbone.{setting}" not in choices
    value = getattr(BackboneConfig(), setting)
    with pytest.raises(ConfigError, match=f"backbone.{setting} applies to our ResNets only"):
        choose(1_000, backbone__name="timm:test_resnet", **{f"backbone__{setting}": value})


@pytest.mark.journeys
def test_the_views_have_a_size_that_the_network_takes() -> None:
    assert choose(1_000, backbone__name="timm:deit_tiny_patch16_224")[0].views.size == 96
    config, choices = choose(
        1_000, side=200, device="cuda", backbone__name="timm:efficientformer_l1"
    )
    assert config.views.size == 224
    assert "does not take 160 px" in choices["views.size"].reason
    given = {"backbone__name": "timm:deit_tiny_patch16_224", "backbone__options": {"img_size": 48}}
    assert choose(1_000, **given)[0].views.size == 48
    trained = BackboneConfig(name="timm:deit_tiny_patch16_224", options={"img_size": 64})
    config, choices = choose(1_000, trained=trained)
    assert (config.views.size, config.backbone) == (64, trained)
    assert "built for it" in choices["views.size"].reason


def test_pretrained_weights_are_proposed_only_where_there_are_some_and_with_settings_that_apply() -> (
    None
):
    ours = advice(choose(500)[0], 500) or ""
    assert "backbone.pretrained=true backbone.stem=large" in ours
    theirs = advice(choose(500, backbone__name="timm:test_resnet")[0], 500) or ""
    assert "backbone.pretrained=true" in theirs
    assert "stem" not in theirs
    nobody = advice(choose(500, backbone__name="resnet10")[0], 500) or ""
    assert "few" in nobody
    assert "pretrained" not in nobody


@pytest.mark.parametrize(
    ("speedup", "precision"),
    [(2.1, "bf16"), (1.5, "bf16"), (1.4, "fp32"), (0.5, "fp32"), (0.0, "fp32")],
)
def test_a_cpu_trains_in_bf16_where_that_is_fast_and_the_config_says_which(
    speedup: float, precision: str
) -> None:
    for left_open in ({}, {"precision": "auto"}):
        config, choices = choose(1_000, bf16_speedup=speedup, **left_open)
        assert config.precision == choices["precision"].value == precision
        assert "bf16" in choices["precision"].reason
    assert choose(1_000, bf16_speedup=speedup, precision="fp32")[0].precision == "fp32"
    assert "precision" not in choose(1_000, bf16_speedup=speedup, precision="fp64")[1]
    assert choose(1_000, device="cuda")[0].precision == "auto", "the device decides"
