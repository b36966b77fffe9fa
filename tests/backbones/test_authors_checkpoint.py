from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from authors_format import as_simclr, as_tuned, golden_state, save
from sdclr.backbones.authors_checkpoint import read_authors_checkpoint
from sdclr.errors import CheckpointError, ConfigError, MissingInputError


@pytest.mark.parametrize(("branch", "tag"), [("target", "dense"), ("competitor", "pruned_bn")])
def test_a_converted_backbone_gives_the_references_features_and_logits(
    golden: Path, branch: Any, tag: str
) -> None:
    checkpoint = read_authors_checkpoint(golden / "upstream_sdclr_resnet18_w8.pt", branch)
    assert (checkpoint.architecture.name, checkpoint.architecture.width, checkpoint.architecture.stem) == (
        "resnet18", 8, "small",
    )  # fmt: skip
    values = np.load(golden / "upstream_sdclr_resnet18_w8_expected.npz")
    images = torch.tensor(values["images_uint8"]).double() / 255
    with torch.no_grad():
        features = checkpoint.backbone.double()(images)
    np.testing.assert_allclose(features, values[f"{tag}_features_f64"], rtol=0, atol=1e-12)
    logits = F.linear(
        features, *(torch.tensor(values[f"{tag}_fc_{p}"]).double() for p in ("weight", "bias"))
    )
    np.testing.assert_allclose(logits, values[f"{tag}_logits_f64"], rtol=0, atol=1e-12)


def test_every_key_is_matched_or_left_out_for_a_reason(golden: Path) -> None:
    path = golden / "upstream_sdclr_resnet18_w8.pt"
    state = torch.load(path, weights_only=True)["state_dict"]
    checkpoint = read_authors_checkpoint(path)
    assert checkpoint.num_matched + len(checkpoint.left_out) == len(state)
    assert set(checkpoint.left_out.values()) == {
        "norms of the other branch", "projection head", "normalisation constants, which the backbone has itself",
    }  # fmt: skip
    for words in ("resnet18, width 8", "missing: 0", "norms of the other branch"):
        assert words in checkpoint.summary()


def test_a_fine_tuned_classifier_is_found(tmp_path: Path, golden: Path) -> None:
    tuned = as_tuned(golden_state(golden), 10)
    checkpoint = read_authors_checkpoint(
        save(tmp_path / "tuned.pt", tuned, 30, best_prec1=torch.tensor(80.0))
    )
    assert checkpoint.classifier is not None
    assert torch.equal(checkpoint.classifier["weight"], tuned["fc.weight"])
    assert (checkpoint.projector_layers, checkpoint.dual_norms) == (None, False)
    assert "a classifier of 10 classes" in checkpoint.summary()
    with pytest.raises(ConfigError, match="no competitor branch"):
        read_authors_checkpoint(tmp_path / "tuned.pt", "competitor")


def test_head_depth_and_norms_are_read_off_the_file(tmp_path: Path, golden: Path) -> None:
    sdclr = read_authors_checkpoint(golden / "upstream_sdclr_resnet18_w8.pt")
    assert (sdclr.projector_layers, sdclr.dual_norms) == (3, True)
    simclr = read_authors_checkpoint(save(tmp_path / "x.pt", as_simclr(golden_state(golden)), 5))
    assert (simclr.projector_layers, simclr.dual_norms) == (2, False)
    assert "one set, projection head: 2 layers" in simclr.summary()


LAYOUTS = {
    "pretrain_simclr_resnet18_cifar": ("resnet18", "small"),
    "pretrain_sdclr_dual_resnet18_cifar": ("resnet18", "small"),
    "pretrain_simclr_resnet50_imagenet": ("resnet50", "large"),
    "pretrain_sdclr_dual_resnet50_imagenet": ("resnet50", "large"),
    "tuned_classifier_resnet18_cifar10": ("resnet18", "small"),
    "tuned_classifier_resnet50_imagenet100": ("resnet50", "large"),
}


AT_ONCE = ("pretrain_sdclr_dual_resnet50_imagenet", "tuned_classifier_resnet18_cifar10")


@pytest.mark.parametrize(
    "kind",
    [k if k in AT_ONCE else pytest.param(k, marks=pytest.mark.slow) for k in LAYOUTS],
)
def test_every_full_size_layout_converts_with_nothing_unexplained(
    kind: str, golden: Path, tmp_path: Path
) -> None:
    layout = json.loads((golden / "checkpoint_layouts.json").read_text())[kind]["state_dict"]
    state = {
        key: torch.zeros(shape, dtype=getattr(torch, dtype))
        for key, (shape, dtype) in layout.items()
    }
    for part, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
        state |= {key: torch.tensor(values) for key in layout if key.endswith(f"normalize.{part}")}
    torch.save({"epoch": 7, "state_dict": state}, tmp_path / "x.pt")
    checkpoint = read_authors_checkpoint(tmp_path / "x.pt")
    assert (checkpoint.architecture.name, checkpoint.architecture.stem) == LAYOUTS[kind]
    assert checkpoint.architecture.width == 64
    assert checkpoint.num_matched + len(checkpoint.left_out) == len(layout)
    assert (checkpoint.classifier is not None) == kind.startswith("tuned")
    assert checkpoint.dual_norms == ("dual" in kind)
    assert checkpoint.projector_layers == {"simclr": 2, "sdclr": 3}.get(kind.split("_")[1])


def test_what_is_no_checkpoint_of_theirs_is_refused_by_name(tmp_path: Path, golden: Path) -> None:
    with pytest.raises(MissingInputError, match="does not exist"):
        read_authors_checkpoint(tmp_path / "none.pt")
    whole = (golden / "upstream_sdclr_resnet18_w8.pt").read_bytes()
    for number, content in enumerate((b"", b"<html>", whole[:1000], whole[: len(whole) // 2])):
        path = tmp_path / f"{number}.pt"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{number}\.pt"):
            read_authors_checkpoint(path)
    state = torch.load(golden / "upstream_sdclr_resnet18_w8.pt", weights_only=True)["state_dict"]
    without = {k: v for k, v in state.items() if k != "module.layer2.0.conv1.weight"}
    shallow = {k: v for k, v in state.items() if "layer3.1" not in k}
    other_mean = state | {"module.normalize.mean": torch.tensor([0.5, 0.5, 0.5])}
    # ImageNet's constants themselves are 0 as integers
    integers = state | {"module.normalize.std": torch.zeros(3, dtype=torch.int64)}
    for changed, words in (
        ([1, 2], "holds a list"),
        ({"state_dict": {}}, "no state_dict"),
        ({"state_dict": without}, "1 missing"),
        ({"state_dict": shallow}, r"\(2, 2, 1, 2\) BasicBlocks"),
        ({"state_dict": other_mean}, "normalises its input"),
        ({"state_dict": integers}, r"normalises its input by \[0, 0, 0\]"),
        ({"state_dict": {"fc.weight": torch.zeros(2, 2)}}, "no conv1.weight"),
        (
            {"state_dict": state | {"conv1.weight": state["module.conv1.weight"]}},
            "two tensors for conv1.weight, the second as 'conv1.weight'",
        ),
        (
            {"state_dict": state | {"module.bn1.weight": torch.ones(8)}},
            "two tensors for bn1.weight",
        ),
        (
            {"state_dict": state | {"module.bn1.bn_list.2.weight": torch.ones(8)}},
            r"module\.bn1\.bn_list\.2\.weight; the authors' networks have bn_list\.0 and bn_list\.1",
        ),
        ({"state_dict": state | {"module.fc.odd": torch.ones(8)}}, r"1 unknown \(fc\.odd\)"),
        ({"state_dict": state | {"module.normalize.gamma": torch.ones(3)}}, "1 unknown"),
        (
            {"state_dict": {key: tensor.half() for key, tensor in state.items()}},
            "Was it cast as a whole",
        ),
        ({"state_dict": state | {"fc.bias": torch.zeros(2)}}, "damaged classifier"),
        (
            {"state_dict": state | {"fc.weight": torch.tensor(1.0), "fc.bias": torch.zeros(2)}},
            "damaged classifier",
        ),
        (
            {"state_dict": state | {"fc.weight": torch.ones(2, 64), "fc.bias": torch.zeros(3)}},
            "damaged classifier",
        ),
    ):
        torch.save(changed, tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match=words):
            read_authors_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("module.conv1.weight", torch.nan, "conv1.weight holds numbers that are not finite"),
        ("module.bn1.bn_list.0.running_var", -1.0, "bn1.running_var holds a negative variance"),
        ("module.conv1.weight", torch.int32, "conv1.weight torch.int32"),
        ("module.conv1.weight", torch.bool, "conv1.weight torch.bool"),
        ("module.conv1.weight", torch.complex64, "conv1.weight torch.complex64"),
    ],
)
def test_weights_that_no_network_can_use_are_named(
    tmp_path: Path, golden: Path, key: str, value: float | torch.dtype, named: str
) -> None:
    state = dict(golden_state(golden))
    if isinstance(value, torch.dtype):
        state[key] = state[key].to(value)
    else:
        state[key] = torch.full_like(state[key], value)
    with pytest.raises(CheckpointError, match=named):
        read_authors_checkpoint(save(tmp_path / "x.pt", state, 1))


def test_weights_of_another_precision_are_taken_and_named(tmp_path: Path, golden: Path) -> None:
    state = golden_state(golden)
    halves = {key: t.half() if t.is_floating_point() else t for key, t in state.items()}
    checkpoint = read_authors_checkpoint(save(tmp_path / "x.pt", halves, 1))
    assert "stored as float16, now float32" in checkpoint.summary()
    weight = checkpoint.backbone.net.state_dict()["conv1.weight"]
    assert torch.equal(weight, halves["module.conv1.weight"].float())
    assert "stored as" not in read_authors_checkpoint(save(tmp_path / "y.pt", state, 1)).summary()


def test_an_epoch_is_a_number(tmp_path: Path, golden: Path) -> None:
    state = golden_state(golden)
    assert read_authors_checkpoint(save(tmp_path / "x.pt", state, True)).epoch is None
    assert read_authors_checkpoint(save(tmp_path / "x.pt", state, 1)).epoch == 1
