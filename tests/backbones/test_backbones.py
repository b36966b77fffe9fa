from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from sdclr import load_backbone
from sdclr.backbones import (
    Backbone,
    BackboneConfig,
    build_backbone,
    checkpoint_activations,
    contiguous_tails,
    measure_feature_dim,
)
from sdclr.backbones.build import OURS_IN_TORCHVISION
from sdclr.backbones.config import OUR_RESNETS
from sdclr.backbones.resnet import DEPTHS, ResNet
from sdclr.backbones.weights import load_weights, save_backbone
from sdclr.errors import CheckpointError, ConfigError, DataError, MissingInputError


def images(count: int = 2, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "width", "feature_dim"),
    [
        ("resnet10", 64, 512),
        ("resnet18", 64, 512),
        ("resnet34", 16, 128),
        ("resnet50", 64, 2048),
        ("resnet10", 8, 64),
    ],
)
def test_feature_sizes_are_measured(name: str, width: int, feature_dim: int) -> None:
    backbone = build_backbone(BackboneConfig(name=name, width=width))
    assert measure_feature_dim(backbone, 32) == feature_dim
    assert backbone.training, "measuring leaves the mode as it was"
    assert int(backbone.net.bn1.num_batches_tracked) == 0, "and moves no statistics"  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_our_resnets_are_torchvisions_but_for_the_stem(name: str) -> None:
    ours = build_backbone(BackboneConfig(name=name, stem="large")).net
    theirs = torchvision.models.get_model(name, weights=None)
    theirs.fc = nn.Identity()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images(2, 64)), theirs.eval()(images(2, 64)))


def test_the_small_stem_keeps_the_resolution_and_the_last_norms_are_not_zero() -> None:
    net = build_backbone(BackboneConfig(name="resnet18", width=8)).net
    assert net.maxpool(net.relu(net.bn1(net.conv1(images())))).shape == (2, 8, 32, 32)  # type: ignore[operator]
    assert all((m.weight == 1).all() for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    std = net.get_parameter("layer3.0.conv2.weight").detach().std()
    assert float(std) == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05), "Kaiming, fan out"


@pytest.mark.parametrize(
    "config",
    [
        BackboneConfig(name="timm:resnet10t"),
        BackboneConfig(name="timm:vit_tiny_patch16_224", options={"img_size": 32, "depth": 1}),
        BackboneConfig(name="torchvision:resnet18"),
        BackboneConfig(name="torchvision:mobilenet_v3_small"),
        BackboneConfig(name="torchvision:efficientnet_b0"),
    ],
    ids=lambda config: config.name,
)
def test_stock_networks_give_features_and_load_back_strictly(
    config: BackboneConfig, tmp_path: Path
) -> None:
    backbone = build_backbone(config).eval()
    feature_dim = measure_feature_dim(backbone, 32)
    save_backbone(
        tmp_path / "b.safetensors", backbone, config.to_dict(), {"feature_dim": feature_dim}
    )
    loaded = load_backbone(tmp_path / "b.safetensors")
    with torch.no_grad():
        features = loaded(images())
        assert features.shape == (2, feature_dim)
        assert torch.equal(features, backbone(images()))
    if config.name == "timm:resnet10t":
        stock = timm.create_model("resnet10t", num_classes=0)
        stock.load_state_dict(backbone.net.state_dict(), strict=True)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (BackboneConfig(name="resnet81"), "Did you mean resnet18"),
        (BackboneConfig(name="timm:resnet18x"), "timm has no model"),
        (BackboneConfig(name="torchvision:resnet"), "torchvision has no classification model"),
        (BackboneConfig(name="hub:x"), "torchvision:<name> or timm:<name>"),
        (
            BackboneConfig(name="timm:resnet10t", width=16),
            "backbone.width applies to our ResNets only",
        ),
        (BackboneConfig(name="resnet18", options={"a": 1}), "backbone.options applies to"),
        (
            BackboneConfig(name="timm:resnet10t", options={"img_size": 32}),
            "does not take backbone.options",
        ),
        (
            BackboneConfig(name="torchvision:resnet18", options={"depth": 3}),
            "does not take backbone.options",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_cure(config: BackboneConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_backbone(config)


def test_a_network_that_gives_no_features_is_refused() -> None:
    with pytest.raises(ConfigError, match="global pooling"):
        measure_feature_dim(Backbone(nn.Conv2d(3, 4, 3)), 32)
    with pytest.raises(ConfigError, match=r"32 x 32 px.*views\.size"):
        measure_feature_dim(
            build_backbone(BackboneConfig(name="timm:vit_tiny_patch16_224", options={"depth": 1})),
            32,
        )


class Odd(nn.Module):
    """Features that no projector can use."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.change = nn.Conv2d(3, 4, 3), change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (torch.Tensor.half, r"the same type as its images, torch\.float32, got torch\.float16"),
        (lambda x: x / 0, "are not finite"),
    ],
)
def test_features_of_another_type_or_not_finite_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        measure_feature_dim(Backbone(Odd(change)), 32)


def test_the_input_is_normalised_inside_with_imagenet_constants() -> None:
    net = nn.Flatten()
    backbone = Backbone(net)
    expected = torchvision.transforms.functional.normalize(
        images(), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(backbone(images()), expected.flatten(1))
    double = backbone.double()(images().double())
    float32_mean = torch.tensor(0.485).double()
    assert (
        double[0, 0]
        == (images().double()[0, 0, 0, 0] - float32_mean) / torch.tensor(0.229).double()
    )


def test_custom_networks_come_back_with_their_module_only(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    save_backbone(tmp_path / "b.safetensors", Backbone(net), {"name": "custom"}, {})
    with pytest.raises(ConfigError, match="network="):
        load_backbone(tmp_path / "b.safetensors")
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert torch.equal(
        load_backbone(tmp_path / "b.safetensors", other)(images()), Backbone(net)(images())
    )
    with pytest.raises(CheckpointError, match="does not fit"):
        load_backbone(tmp_path / "b.safetensors", nn.Conv2d(3, 5, 3))
    with pytest.raises(MissingInputError, match="not finished"):
        load_backbone(tmp_path)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_weights(
            build_backbone(BackboneConfig(name="resnet10", width=8)), tmp_path / "b.safetensors"
        )


@pytest.mark.journeys
@pytest.mark.parametrize(
    "config",
    [
        BackboneConfig(name="resnet10", width=8),
        BackboneConfig(name="torchvision:resnet18"),
        BackboneConfig(name="timm:vit_tiny_patch16_224", options={"img_size": 32, "depth": 2}),
    ],
    ids=lambda config: config.name,
)
def test_recomputed_activations_give_the_same_gradients_and_statistics(
    config: BackboneConfig,
) -> None:
    torch.manual_seed(0)
    plain = build_backbone(config).double()
    recomputed = copy.deepcopy(plain)
    assert checkpoint_activations(recomputed.net) >= 2
    recomputed = copy.deepcopy(recomputed)  # the competitor copies it
    for backbone in (plain, recomputed):
        backbone(images(4).double()).square().sum().backward()
    assert list(plain.state_dict()) == list(recomputed.state_dict())
    for (name, a), b in zip(
        plain.state_dict().items(), recomputed.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    for (name, a), b in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12, msg=name)


def test_recomputation_runs_the_blocks_twice() -> None:
    backbone = build_backbone(BackboneConfig(name="resnet10", width=8))
    checkpoint_activations(backbone.net)
    calls = []
    backbone.net.layer3[0].conv1.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr,index]
    backbone(images()).sum().backward()
    assert len(calls) == 2
    backbone.eval()(images())
    assert len(calls) == 3
    with pytest.raises(ConfigError, match="found no blocks"):
        checkpoint_activations(nn.Conv2d(3, 3, 3))


def test_a_contiguous_tail_changes_the_layout_of_the_last_stage_and_not_the_features() -> None:
    torch.manual_seed(0)
    plain = ResNet("resnet10", 64).double()
    mixed = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    contiguous_tails(nn.Sequential(mixed), image_size=32)
    assert mixed.layer4[0].conv1.weight.is_contiguous()
    assert mixed.layer3[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    seen: list[bool] = []
    mixed.layer4[0].conv1.register_forward_hook(
        lambda module, args, out: seen.append(out.is_contiguous())
    )
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(mixed(images.to(memory_format=torch.channels_last)), plain(images))
    assert seen == [True]


@pytest.mark.parametrize(
    ("width", "stem", "size"), [(64, "small", 40), (32, "small", 32), (64, "large", 224)]
)
def test_tails_stay_as_they_are_where_maps_are_larger_or_narrow(
    width: int, stem: str, size: int
) -> None:
    network = ResNet("resnet10", width, stem).to(memory_format=torch.channels_last)  # type: ignore[arg-type]
    contiguous_tails(network, size)
    assert not network.contiguous_tail
    assert network.layer4[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("resnet18", "resnet18"), ("resnet34", "resnet34"), ("resnet50", "resnet50")],
)
def test_our_blocks_compute_what_torchvisions_do_to_the_bit(name: str, theirs: str) -> None:
    torch.manual_seed(0)
    ours = ResNet(name, stem="large")
    stock = torchvision.models.get_model(theirs, weights=None)
    stock.fc = nn.Identity()
    assert list(ours.state_dict()) == list(stock.state_dict())
    assert [key for key, _ in ours.named_modules()] == [
        key for key, _ in stock.named_modules() if key != "fc"
    ]
    stock.load_state_dict(ours.state_dict())
    images = torch.rand(3, 3, 40, 40)
    for train in (True, False):
        assert torch.equal(ours.train(train)(images), stock.train(train)(images))


def test_the_names_of_our_networks_are_those_that_are_built() -> None:
    assert tuple(DEPTHS) == OUR_RESNETS


def test_our_networks_that_torchvision_has_weights_for_are_known_without_it() -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    assert set(OURS_IN_TORCHVISION) == set(names) & {*OUR_RESNETS}


def test_input_that_no_layer_could_take_is_said() -> None:
    backbone = build_backbone(BackboneConfig(name="resnet10", width=4)).eval()
    backbone.checks_input = True  # as of one that was loaded
    with pytest.raises(DataError, match=r"images in \[0, 1\], and these contain nan"):
        backbone(torch.full((1, 3, 8, 8), torch.nan))
    with pytest.raises(
        DataError, match=r"weights are torch.float32, and these images are torch.float64"
    ):
        backbone(torch.rand(1, 3, 8, 8).double())
    assert backbone.double()(torch.rand(1, 3, 8, 8).double()).dtype == torch.float64
