from __future__ import annotations

import pytest
import torch
from torch import nn

from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.backbones.without_data import without_data


@pytest.mark.parametrize(
    "config",
    [
        BackboneConfig(name="resnet10", width=4),
        BackboneConfig(name="torchvision:mobilenet_v3_small"),
        BackboneConfig(name="timm:test_vit"),
    ],
    ids=lambda config: config.name,
)
def test_a_network_has_the_names_shapes_and_types_that_it_has_with_data(
    config: BackboneConfig,
) -> None:
    with without_data():
        without = build_backbone(config).state_dict()
    with_data = build_backbone(config).state_dict()
    assert {name: (t.shape, t.dtype) for name, t in without.items()} == {
        name: (t.shape, t.dtype) for name, t in with_data.items()
    }
    assert {t.device.type for t in without.values()} == {"meta"}


def test_what_has_numbers_is_filled_inside_too() -> None:
    before = torch.zeros(3)
    with without_data():
        before.fill_(2)
        nn.init.kaiming_uniform_(other := torch.zeros(4, 4, device="cpu"))
    assert before.tolist() == [2, 2, 2]
    assert other.abs().sum() > 0


def test_outside_nothing_has_changed() -> None:
    with without_data():
        pass
    assert nn.Linear(2, 2).weight.abs().sum() > 0
    torch.manual_seed(0)
    first = build_backbone(BackboneConfig(name="resnet10", width=2)).state_dict()
    torch.manual_seed(0)
    with without_data():
        build_backbone(BackboneConfig(name="resnet10", width=2))
    second = build_backbone(BackboneConfig(name="resnet10", width=2)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first), "nothing was drawn"
