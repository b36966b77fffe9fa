"""Backbone files: what they say is checked before it is believed, and what they hold before it is used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdclr import load_backbone
from sdclr.backbones import Backbone, BackboneConfig, build_backbone
from sdclr.backbones.weights import FORMAT, load_weights, read_backbone
from sdclr.errors import CheckpointError
from sdclr.storage.tensor_files import write_tensors

SMALL = BackboneConfig(name="resnet10", width=2)


def facts(**changed: Any) -> dict[str, Any]:
    normalisation = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    described = {"architecture": SMALL.to_dict(), "normalisation": normalisation, "image_size": 32}
    return {"format": FORMAT, "feature_dim": 16} | described | changed


def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_backbone(SMALL).net.state_dict()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"image_size": "32"}, "image_size"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": -3}, "image_size"),
        ({"image_size": 10**6}, "image_size"),
        ({"image_size": [32]}, "image_size"),
        ({"image_size": 32.5}, "image_size"),
        ({"feature_dim": -1}, "feature_dim"),
        ({"feature_dim": "many"}, "feature_dim"),
        ({"normalisation": {"mean": [0.5] * 3, "std": [0.0, 1.0, 1.0]}}, "std"),
        ({"normalisation": {"mean": [0.5] * 3, "std": [-1.0, 1.0, 1.0]}}, "std"),
        ({"normalisation": {"mean": [0.5] * 4, "std": [1.0] * 3}}, "mean"),
        ({"normalisation": {"mean": [float("inf")] * 3, "std": [1.0] * 3}}, "mean"),
        ({"normalisation": {"mean": "grey", "std": [1.0] * 3}}, "mean"),
        ({"normalisation": None}, "normalisation"),
        ({"architecture": None}, "architecture"),
        ({"architecture": []}, "architecture"),
        ({"architecture": {"name": "resnet10", "width": "2"}}, "width"),
        ({"architecture": {"name": "resnet10", "depth": 3}}, "depth"),
    ],
)
def test_metadata_that_are_not_valid_are_an_error_that_names_the_field(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    path = tmp_path / "b.safetensors"
    write_tensors(path, weights(), facts(**changed))
    for read in (read_backbone, load_backbone):
        with pytest.raises(CheckpointError, match=named):
            read(path)


def test_a_mean_too_large_for_a_float_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    text = json.dumps(facts()).replace("0.5, 0.5, 0.5", "1e400, 0.5, 0.5")
    write_tensors(path, weights(), json.loads(text))
    with pytest.raises(CheckpointError, match="mean"):
        load_backbone(path)


def test_facts_that_only_people_read_may_be_missing_but_not_the_size_that_embedding_needs(
    tmp_path: Path,
) -> None:
    path = tmp_path / "b.safetensors"
    write_tensors(
        path,
        weights(),
        {k: v for k, v in facts().items() if k not in ("image_size", "feature_dim")},
    )
    assert load_backbone(path)(torch.rand(2, 3, 32, 32)).shape == (2, 16)
    with pytest.raises(CheckpointError, match="image size"):
        read_backbone(path).require_image_size()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layers": [10**7, 1, 1, 1]}, "options"),
        ({"layers": [10**4, 1, 1, 1]}, "more than .* layers"),
        ({"layers": [1] * 5000}, "more than 1000 options"),
        ({"width": 1e300}, "options"),
    ],
)
def test_a_network_that_is_much_larger_than_its_file_is_not_built(
    tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    path = tmp_path / "b.safetensors"
    architecture = {"name": "timm:resnet18", "options": options}
    write_tensors(path, weights(), facts(architecture=architecture))
    with pytest.raises(CheckpointError, match=named):
        load_backbone(path)


@pytest.mark.journeys
def test_a_network_whose_unsaved_buffers_fit_no_memory_is_not_built(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    architecture = {"name": "timm:swin_tiny_patch4_window7_224", "options": {"img_size": 14_336}}
    small = {"name": "timm:swin_tiny_patch4_window7_224", "options": {"img_size": 224}}
    tensors = build_backbone(BackboneConfig.parse(small)).net.state_dict()
    write_tensors(path, tensors, facts(architecture=architecture))
    with pytest.raises(CheckpointError, match="GB of buffers"):
        load_backbone(path)


def spoil(name: str, value: float) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name].view(-1)[0] = value

    return change


def retype(name: str, dtype: torch.dtype) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name] = tensors[name].to(dtype)

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (spoil("conv1.weight", float("nan")), "conv1.weight holds numbers that are not finite"),
        (spoil("layer1.0.bn1.bias", float("inf")), "layer1.0.bn1.bias holds numbers"),
        (spoil("bn1.running_var", -1.0), "bn1.running_var holds a negative variance"),
        (spoil("bn1.running_mean", float("-inf")), "bn1.running_mean"),
        (retype("conv1.weight", torch.int32), "conv1.weight torch.int32 instead of torch.float32"),
        (retype("bn1.weight", torch.bool), "bn1.weight torch.bool"),
        (retype("bn1.weight", torch.complex64), "bn1.weight torch.complex64"),
        (retype("bn1.num_batches_tracked", torch.float32), "bn1.num_batches_tracked torch.float32"),
        (retype("conv1.weight", torch.float8_e4m3fn), "conv1.weight has the type"),
    ],
)
def test_weights_that_no_network_can_use_are_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], None], named: str
) -> None:
    path, tensors = tmp_path / "b.safetensors", weights()
    change(tensors)
    write_tensors(path, tensors, facts())
    with pytest.raises(CheckpointError, match=named):
        load_backbone(path)
    with pytest.raises(CheckpointError, match=named):
        load_weights(build_backbone(SMALL), path)


def test_half_precision_weights_are_as_good_as_any(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    write_tensors(
        path, {k: t.half() if t.is_floating_point() else t for k, t in weights().items()}, facts()
    )
    assert next(load_backbone(path).parameters()).dtype == torch.float16


def test_a_name_in_a_message_is_short_and_has_no_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    write_tensors(path, weights() | {"\x1b[31m\n" + "x" * 200_000: torch.zeros(1)}, facts())
    with pytest.raises(CheckpointError) as error:
        load_backbone(path)
    assert len(str(error.value)) < 500
    assert str(error.value).isprintable()


def test_a_wrapped_network_is_taken_out_of_its_wrapper(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    network = build_backbone(SMALL).net
    write_tensors(path, network.state_dict(), facts(architecture={"name": "custom"}))
    for wrapped in (
        torch.compile(network),
        nn.DataParallel(network),
        torch.compile(nn.DataParallel(network)),
    ):
        assert Backbone(wrapped).net is network
        assert load_backbone(path, network=wrapped).net is network
