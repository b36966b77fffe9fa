"""Runs with stock networks and with weights of others: what is resolved once is recorded, and a resume keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from one_training import interrupting, patch_steps
from sdclr import PretrainConfig, Run, load_backbone, pretrain, recipe, resume
from sdclr.backbones import Backbone, BackboneConfig, build_backbone
from sdclr.backbones import weights as backbone_files
from sdclr.backbones.weights import read_backbone, save_backbone
from sdclr.errors import ConfigError
from sdclr.jobs.pretrain import build
from sdclr.presentation.progress import NoProgress

GREY = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
IMAGENET_MEAN = [0.485, 0.456, 0.406]


def tiny(*overrides: str) -> PretrainConfig:
    few = [
        "views.size=8",
        "health_every_epochs=0",
        "batch_size=135",
        "epochs=2",
        "checkpoint_every_epochs=1",
        "backbone.width=2",
    ]
    return recipe("digits_sdclr").with_overrides(few).with_overrides(overrides)


DEIT = ("backbone.name=timm:deit_tiny_patch16_224", "views.size=32")
VIT = (*DEIT, 'backbone.options={"depth": 4, "embed_dim": 96}')


class Printed(NoProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def print(self, line: str) -> None:
        self.lines.append(line)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def interrupted(
    monkeypatch: pytest.MonkeyPatch, config: PretrainConfig, out: Path, at: int, **more: Any
) -> None:
    """Begin a run and end it, as Ctrl-C does, before step ``at``."""
    with monkeypatch.context() as patch:
        patch_steps(patch, interrupting(at))
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, out, **more)


def same_backbones(a: Run, b: Run) -> bool:
    tensors, others = (read_backbone(run.folder).tensors for run in (a, b))
    return all(torch.equal(tensors[name], others[name]) for name in tensors.keys() | others.keys())


@pytest.fixture
def grey_weights(tmp_path: Path) -> Path:
    """Weights that were trained with another input normalisation than ImageNet's."""
    config = tiny().backbone
    backbone = Backbone(build_backbone(config).net, *GREY)
    save_backbone(tmp_path / "grey.safetensors", backbone, config.to_dict(), {"image_size": 8})
    return tmp_path / "grey.safetensors"


def mean_of(source: Path) -> list[float]:
    return load_backbone(source).mean.flatten().tolist()


def test_weights_bring_their_input_normalisation_and_the_run_says_so(
    grey_weights: Path, tmp_path: Path
) -> None:
    shown = Printed()
    run = pretrain(tiny(f"weights={grey_weights}", "epochs=1"), tmp_path / "run", progress=shown)
    assert mean_of(run.folder) == [0.5, 0.5, 0.5]
    assert "input normalisation of the weights: mean 0.5 0.5 0.5, std 0.25 0.25 0.25" in shown.text
    next_run = pretrain(tiny(f"weights={run.folder}", "epochs=1"), tmp_path / "next")
    assert mean_of(next_run.folder) == [0.5, 0.5, 0.5], "a run folder as weights likewise"
    assert Run(run.folder).settings()["backbone"]["normalisation"] == "auto"


def test_a_normalisation_that_the_user_gave_wins(grey_weights: Path, tmp_path: Path) -> None:
    shown = Printed()
    config = tiny(f"weights={grey_weights}", "epochs=1", "backbone.normalisation=imagenet")
    run = pretrain(config, tmp_path / "run", progress=shown)
    torch.testing.assert_close(torch.tensor(mean_of(run.folder)), torch.tensor(IMAGENET_MEAN))
    assert "the weights were trained with mean 0.5" in shown.text


def test_a_run_that_goes_on_keeps_the_normalisation_also_when_the_weights_are_gone(
    grey_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(f"weights={grey_weights}")
    whole = pretrain(config, tmp_path / "whole")
    interrupted(monkeypatch, config, tmp_path / "cut", at=3)
    grey_weights.unlink()
    cut = resume(tmp_path / "cut")
    assert mean_of(cut.folder) == [0.5, 0.5, 0.5]
    assert same_backbones(cut, whole)


def test_a_run_of_an_earlier_version_goes_on_with_imagenets_normalisation(
    grey_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch, tiny(f"weights={grey_weights}"), tmp_path / "old", at=3)
    run = Run(tmp_path / "old")
    seen = run.read_json("environment.json")
    del seen["resolved"]  # that version took ImageNet's, and did not write this
    run.write_json("environment.json", seen)
    torch.testing.assert_close(
        torch.tensor(mean_of(resume(run.folder).folder)), torch.tensor(IMAGENET_MEAN)
    )


def test_options_that_leave_no_trace_in_the_weights_are_a_warning(tmp_path: Path) -> None:
    leaky = BackboneConfig(name="timm:test_resnet", options={"act_layer": "leaky_relu"})
    save_backbone(tmp_path / "leaky.safetensors", build_backbone(leaky), leaky.to_dict(), {})
    config = tiny(
        "backbone.name=timm:test_resnet", f"weights={tmp_path / 'leaky.safetensors'}", "epochs=1"
    )
    with pytest.warns(
        UserWarning, match=r"trained with backbone\.options=\{'act_layer': 'leaky_relu'\}"
    ):
        pretrain(config, tmp_path / "run")


@pytest.mark.journeys
def test_a_vit_gets_its_image_size_from_the_views_and_loads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Printed()
    narrow = (*DEIT, 'backbone.options={"depth": 1, "embed_dim": 12}')
    config = tiny(*narrow, "method.prunable=auto")
    whole = pretrain(config, tmp_path / "whole", progress=shown)
    assert "is built for views of 32 px (img_size=32)" in shown.text
    assert read_backbone(whole.folder).described.architecture.options["img_size"] == 32
    assert whole.settings()["backbone"]["options"] == {"depth": 1, "embed_dim": 12}, (
        "the config stays the user's"
    )
    loaded = load_backbone(whole.folder)
    assert loaded(torch.rand(2, 3, 32, 32)).shape == (2, 12)
    assert (loaded.image_size, loaded.feature_dim) == (32, 12)
    interrupted(monkeypatch, config, tmp_path / "cut", at=3)
    assert same_backbones(resume(tmp_path / "cut"), whole)
    other = tiny(*narrow, "method.prunable=auto", "views.size=48", f"weights={whole.folder}")
    with pytest.raises(Exception, match=r"images of 32 px: views\.size=32"):
        pretrain(other, tmp_path / "other")


@pytest.mark.journeys
def test_what_auto_prunes_is_said_recorded_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Printed()
    config = tiny(*VIT, "method.prunable=auto")
    interrupted(monkeypatch, config, tmp_path / "run", at=3, progress=shown)
    resolved = Run(tmp_path / "run").read_json("environment.json")["resolved"]
    assert resolved["prunable"] == "conv+linear"
    assert resolved["prunable_share"] > 0.5
    said = f"{resolved['prunable_share']:.1%} of all backbone weights are prunable"
    assert said in shown.text
    assert "method.prunable=conv+linear by auto" in shown.text
    # a later version may draw the line elsewhere: a run that goes on keeps its own
    monkeypatch.setattr("sdclr.methods.self_competitor.resolve_prunable", lambda *_: "conv")
    run = resume(tmp_path / "run")
    assert read_backbone(run.folder).facts["prunable"] == "conv+linear"


def test_convolutions_alone_are_pruned_where_they_hold_the_weights(tmp_path: Path) -> None:
    run = pretrain(tiny("method.prunable=auto", "epochs=1"), tmp_path / "run")
    assert run.read_json("environment.json")["resolved"]["prunable"] == "conv"


def test_a_small_share_is_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"only \d+\.\d% of the network's weights are prunable"):
        pretrain(tiny(*VIT, "epochs=1"), tmp_path / "run")
    third = 'backbone.options={"depth": 1, "embed_dim": 96}'
    with pytest.warns(
        UserWarning, match=r"only 3\d\.\d% of the backbone's weights can be pruned.*prunable=auto"
    ):
        pretrain(tiny(*DEIT, third, "epochs=1"), tmp_path / "third")


class DrawsItsMask(nn.Module):
    """A part that is in no state_dict and is drawn anew in every process."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.scale = float(torch.rand(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * self.conv(images).mean((2, 3))


def test_a_network_that_would_not_load_back_is_an_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("backbone.name=timm:test_resnet")

    def refuse(*_: object) -> nn.Module:
        raise backbone_files.CheckpointError(
            "its file does not describe its network: no such module."
        )

    with monkeypatch.context() as patch:
        patch.setattr(backbone_files, "_network_of", refuse)
        with pytest.raises(
            ConfigError, match=r"timm:test_resnet.*could not be loaded again.*backbone\.name"
        ):
            pretrain(config, tmp_path / "run")
    monkeypatch.setattr("sdclr.backbones.build.timm_network", lambda *_: DrawsItsMask())
    with pytest.raises(ConfigError, match="other features after it was saved"):
        pretrain(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_trying_the_way_back_changes_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("backbone.name=timm:test_resnet", "epochs=1")
    tried = pretrain(config, tmp_path / "tried")
    monkeypatch.setattr(build, "require_loadable", lambda *_: None)
    assert same_backbones(tried, pretrain(config, tmp_path / "untried"))


def test_a_network_that_normalises_itself_is_trained_and_loaded_without_a_second_time(
    tmp_path: Path,
) -> None:
    seen: list[Tensor] = []

    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            seen.append(images.detach())
            return self.conv(images).mean((2, 3))

    config = tiny("backbone.name=custom", "backbone.normalisation=none", "epochs=1")
    run = pretrain(config, tmp_path / "run", network=Seen())
    assert min(float(images.min()) for images in seen) >= 0, "as they came, in [0, 1]"
    images = torch.rand(2, 3, 32, 32)
    load_backbone(run.folder, network=Seen())(images)
    assert torch.equal(seen[-1], images)
    assert json.dumps(read_backbone(run.folder).facts["normalisation"]["mean"]) == "[0.0, 0.0, 0.0]"
