"""Other people's weights as a starting point; the downloads themselves are replaced by files of their shapes."""

from __future__ import annotations

import urllib.error
from collections import OrderedDict
from typing import Any

import pytest
import timm
import torch
import torchvision

from sdclr import pretrain, recipe
from sdclr.backbones import (
    BackboneConfig,
    build_backbone,
    input_constants,
    load_pretrained,
    pretrained,
)
from sdclr.errors import ConfigError, MissingInputError


@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet18"])
def test_torchvisions_weights_arrive_whole_and_without_pickles(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(weights=None).state_dict()
    asked: dict[str, Any] = {}

    def fetch(url: str, **options: Any) -> dict[str, torch.Tensor]:
        asked.update(options, url=url)
        return theirs

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    stem = {"stem": "large"} if name == "resnet18" else {}
    backbone = build_backbone(BackboneConfig.parse({"name": name, "pretrained": True} | stem))
    load_pretrained(backbone, name)
    assert all(
        torch.equal(tensor, theirs[key]) for key, tensor in backbone.net.state_dict().items()
    )
    assert asked["url"] == "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert asked["weights_only"]
    assert asked["check_hash"]
    del theirs["layer1.0.conv1.weight"]
    with pytest.raises(Exception, match="1 missing"):
        load_pretrained(backbone, name)


def test_timms_weights_bring_their_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained, **options: fresh(name, **options)
    )
    monkeypatch.setattr(timm, "is_model_pretrained", lambda name: True)
    name = "timm:vit_tiny_patch16_224"
    backbone = build_backbone(BackboneConfig(name=name, pretrained=True))
    assert backbone.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    load_pretrained(backbone, name)
    assert build_backbone(BackboneConfig(name=name)).mean.flatten().tolist() != [0.5, 0.5, 0.5]


def test_networks_without_such_weights_are_refused_before_any_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("downloaded")
    )
    for config, words in (
        ({"name": "resnet18"}, r"backbone\.stem=large"),
        ({"name": "resnet18", "stem": "large", "width": 32}, "got width 32"),
        ({"name": "resnet10", "stem": "large"}, "no pre-trained resnet10"),
        ({"name": "timm:resnet10t_none"}, "timm offers no pre-trained weights"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_backbone(BackboneConfig.parse(config | {"pretrained": True}))


def test_a_download_that_fails_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    values = {
        "backbone": {"name": "resnet18", "stem": "large", "pretrained": True},
        "views.size": 32,
    }
    config = recipe("digits_sdclr").with_values(values)
    with pytest.raises(MissingInputError, match=r"could not be fetched: URLError.*TORCH_HOME"):
        pretrain(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="two starting points"):
        pretrain(config.with_values({"weights": "x"}), tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("resnet18", [0.485, 0.456, 0.406]),
        ("torchvision:resnet18", [0.485, 0.456, 0.406]),
        ("torchvision:efficientnet_v2_l", [0.5, 0.5, 0.5]),  # as its weights say
        (
            "torchvision:inception_v3",
            [0.5, 0.5, 0.5],
        ),  # torchvision undoes ImageNet's inside, with its weights only
        ("torchvision:googlenet", [0.5, 0.5, 0.5]),
        ("timm:vit_tiny_patch16_224", [0.5, 0.5, 0.5]),
    ],
)
def test_pretrained_weights_get_images_normalised_as_in_their_training(
    name: str, mean: list[float]
) -> None:
    stem = {"stem": "large"} if ":" not in name else {}
    config = BackboneConfig.parse({"name": name, "pretrained": True} | stem)
    assert list(input_constants(config).mean) == mean
    given = config.model_copy(update={"normalisation": "imagenet"})
    assert input_constants(given).mean == (0.485, 0.456, 0.406), "the user's wins"
    fresh = config.model_copy(update={"pretrained": False})
    assert input_constants(fresh).mean == (0.485, 0.456, 0.406)


def test_inceptions_own_transform_is_that_normalisation() -> None:
    images = torch.rand(2, 3, 8, 8)
    theirs = torchvision.models.inception_v3(
        transform_input=True, aux_logits=False, init_weights=False
    )
    imagenet = torchvision.transforms.functional.normalize(
        images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(theirs._transform_input(imagenet), (images - 0.5) / 0.5)


def test_position_embeddings_are_interpolated_to_the_size_of_the_views(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = OrderedDict(
        {
            "encoder.pos_embedding": torch.rand(1, 197, 8),
            "conv_proj.weight": torch.rand(8, 3, 16, 16),
        }
    )
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: theirs.copy())
    for options, tokens in (({}, 197), ({"image_size": 96}, 37)):
        tensors = pretrained._torchvision_weights("vit_b_16", options)
        assert tensors["encoder.pos_embedding"].shape == (1, tokens, 8)
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        timm, "create_model", lambda name, **options: asked.update(options) or torch.nn.Identity()
    )
    pretrained._timm_weights("vit_tiny_patch16_224", {"img_size": 96})
    assert (asked["img_size"], asked["pretrained"]) == (96, True)


@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_every_network_of_torchvision_has_weights_that_can_be_asked_for(name: str) -> None:
    assert pretrained._torchvision_entry(name).url.startswith("https://")
