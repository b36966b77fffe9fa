"""Every row of BACKBONES keeps its promise, a network that a user has added included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sdclr
from outside_backbone import TinyNet, no_net, noisy_net
from sdclr import PretrainConfig, SelfCompetitor, load_backbone, pretrain, recipe, resume
from sdclr.backbones import BACKBONES, BackboneConfig, build_backbone
from sdclr.backbones.table import named_backbone
from sdclr.errors import CheckpointError, ConfigError
from sdclr.run.next_step import next_command

OURS = tuple(BACKBONES)
OUTSIDE = ("tinynet",)
SHORT = [
    *(["backbone.width=2"]),
    "views.size=8",
    "batch_size=200",
    "epochs=1",
    "health_every_epochs=0",
]


@pytest.fixture(autouse=True)
def own_entries() -> Iterator[None]:
    with BACKBONES.temporarily():
        sdclr.register_backbone(TinyNet)
        yield


def config_of(name: str) -> BackboneConfig:
    """A small network of this row."""
    row = BACKBONES[name]
    width = {"width": 4} if "width" in row.settings else {}
    return BackboneConfig.parse({"name": row.written.replace("NAME", "resnet18"), **width})


BUILT = [name for name in (*OURS, *OUTSIDE) if name != "custom"]


@pytest.mark.parametrize("name", BUILT)
def test_features_are_one_row_an_image_and_gradients_reach_every_parameter(name: str) -> None:
    backbone = build_backbone(config_of(name))
    features = backbone(torch.rand(3, 3, 32, 32))
    assert features.ndim == 2
    assert len(features) == 3
    assert features.isfinite().all()
    features.square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize("name", BUILT)
def test_a_competitor_is_its_twin(name: str) -> None:
    backbone = build_backbone(config_of(name)).eval()
    twin = SelfCompetitor(backbone, prune_ratio=0.0, norms="shared").eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(twin(images), backbone(images))


@pytest.mark.parametrize("name", [*OURS, *OUTSIDE])
def test_settings_survive_yaml_and_what_a_network_does_not_use_is_refused(
    name: str, tmp_path: Path
) -> None:
    config = recipe("digits_simclr").with_values({"backbone.name": config_of(name).name})
    (tmp_path / "x.yaml").write_text(config.to_yaml())
    assert PretrainConfig.from_yaml(tmp_path / "x.yaml") == config
    for field, value in (("width", 3), ("stem", "large"), ("options", {"depth": 2})):
        if field not in BACKBONES[name].settings:
            with pytest.raises(ConfigError, match=rf"backbone\.{field} applies"):
                config.with_values(
                    {"backbone.name": config.backbone.name, f"backbone.{field}": value}
                )


@pytest.mark.parametrize("name", OURS)
def test_the_documentation_knows_every_backbone_of_ours(name: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
    written = BACKBONES[name].written
    assert f"`{written}`" in text or f"`{written.replace('NAME', '<name>')}`" in text


def test_a_network_from_outside_trains_resumes_and_loads(tmp_path: Path) -> None:
    config = recipe("digits_sdclr").with_overrides(
        ["backbone.name=tinynet", 'backbone.options={"width": 3}', *SHORT[1:]]
    )
    run = pretrain(config, tmp_path / "x")
    backbone = load_backbone(run.folder)
    assert type(backbone.net) is TinyNet
    assert backbone(torch.rand(2, 3, 8, 8)).shape == (2, 6)
    assert run.read_json("environment.json")["outside"] == {"backbone": "outside_backbone:TinyNet"}
    BACKBONES._rows.pop("tinynet")
    with pytest.raises(
        CheckpointError,
        match=r"the backbone tinynet, which is not part of sdclr.*--use module:Name",
    ):
        load_backbone(run.folder)
    with pytest.raises(ConfigError, match=r"sdclr resume .*/x --use outside_backbone:TinyNet"):
        resume(run.folder)
    assert next_command(run, "done") is not None
    assert "--use outside_backbone:TinyNet" in str(next_command(run, "done"))
    assert named_backbone("outside_backbone:TinyNet") == "tinynet"
    assert resume(run.folder).folder == run.folder


def test_a_network_that_is_another_after_loading_is_refused_before_training(tmp_path: Path) -> None:
    sdclr.register_backbone(noisy_net)
    config = recipe("digits_simclr").with_overrides(["backbone.name=noisy_net", *SHORT[1:]])
    with pytest.raises(ConfigError, match="gives other features after it was saved and loaded"):
        pretrain(config, tmp_path / "x")
    assert not (tmp_path / "x" / "config.yaml").exists()


def test_what_makes_no_network_is_refused() -> None:
    sdclr.register_backbone(no_net)
    with pytest.raises(
        ConfigError, match=r"outside_backbone:no_net must make a torch\.nn\.Module, got str"
    ):
        build_backbone(BackboneConfig(name="no_net"))
    with pytest.raises(ConfigError, match="it is a module already"):
        sdclr.register_backbone(TinyNet())
    with pytest.raises(
        ConfigError, match="there is a backbone 'resnet18' already, from sdclr itself"
    ):
        sdclr.register_backbone(TinyNet, "resnet18")
    with pytest.raises(ConfigError, match=r"tinynet does not take backbone.options \{'depth': 3\}"):
        build_backbone(BackboneConfig(name="tinynet", options={"depth": 3}))


@pytest.mark.parametrize(
    "name", ["resnet19", "resnet18:x", "torchvision", "hub:resnet18", "timm:hf-hub:a/b", "tinynett"]
)
def test_a_name_that_is_none_is_met_with_those_there_are(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"backbone.name must be one of resnet10, .*torchvision:<name>"
    ):
        build_backbone(BackboneConfig(name=name))
    assert named_backbone("timm:resnet18") == "timm:resnet18"
