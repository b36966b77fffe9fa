"""Every way to name a network gives the network that was named, and a wrong one a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from digits_run import train_digits
from sdclr import Run
from sdclr.backbones.encoder import digest_of_file, open_encoder
from sdclr.errors import CheckpointError, ConfigError, MissingInputError
from sdclr.storage.tensor_files import read_tensors, write_tensors

TINY = "test_resnet"


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A backbone that gives 32 features of any pictures."""
    return train_digits(tmp_path_factory.mktemp("runs") / "x")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    network = timm.create_model(TINY, pretrained=False)
    torch.save({"state_dict": network.state_dict()}, folder / "w.pth")
    safetensors.torch.save_file(network.state_dict(), folder / "w.safetensors")
    return folder


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_of_a_library_come_from_a_file_without_their_classifier(
    weights: Path, suffix: str
) -> None:
    encoder = open_encoder(f"timm:{TINY}", weights=weights / f"w.{suffix}", image_size=64)
    torch.manual_seed(1)
    network = timm.create_model(TINY, pretrained=False).eval()
    images = torch.rand(2, 3, 64, 64)
    normal = (images - encoder.backbone.mean) / encoder.backbone.std
    expected = network.forward_head(network.forward_features(normal), pre_logits=True)
    torch.testing.assert_close(encoder.backbone(images), expected)
    assert encoder.image_size == 64


def test_the_digest_tells_networks_and_image_sizes_apart(digits_run: Run, weights: Path) -> None:
    one = open_encoder(digits_run.folder)
    assert one.image_size == 8
    assert one.digest == open_encoder(digits_run.folder / "backbone.safetensors").digest
    assert one.digest == digest_of_file(digits_run.folder)
    assert one.digest != open_encoder(digits_run.folder, image_size=16).digest
    other = open_encoder(f"timm:{TINY}", weights=weights / "w.pth", image_size=8)
    assert one.digest != other.digest


def test_a_file_of_half_precision_has_the_digest_of_its_network(
    digits_run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "half.safetensors"
    tensors, facts = read_tensors(digits_run.backbone_path)
    halved = {key: one.half() if one.is_floating_point() else one for key, one in tensors.items()}
    write_tensors(file, halved, facts)
    assert open_encoder(file).digest == digest_of_file(file) != digest_of_file(digits_run.folder)


def test_a_checkpoint_of_the_authors_is_an_encoder(golden: Path) -> None:
    encoder = open_encoder(golden / "upstream_sdclr_resnet18_w8.pt")
    assert encoder.backbone(torch.rand(2, 3, 32, 32)).shape == (2, 64)
    assert encoder.image_size == 32


def test_a_file_may_fit_in_part_or_in_order(weights: Path, tmp_path: Path) -> None:
    named, renamed, part = (weights / "w.pth", tmp_path / "renamed.pth", tmp_path / "part.pth")
    whole = torch.load(named)["state_dict"]
    torch.save({f"x{number}": one for number, one in enumerate(whole.values())}, renamed)
    torch.save({name: one for name, one in whole.items() if "conv1" not in name}, part)
    with pytest.raises(CheckpointError, match=r"finetune and mine: --weights-match order"):
        open_encoder(f"timm:{TINY}", weights=renamed)
    exact = open_encoder(f"timm:{TINY}", weights=named)
    in_order = open_encoder(f"timm:{TINY}", weights=renamed, weights_match="order")
    assert in_order.digest == exact.digest
    with pytest.raises(CheckpointError, match=r"finetune and mine: --weights-match partial"):
        open_encoder(f"timm:{TINY}", weights=part)
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        with pytest.warns(UserWarning, match=r"stay fresh \(.*as --weights-match partial allows"):
            found = open_encoder(f"timm:{TINY}", weights=part, weights_match="partial")
        digests.add(found.digest)
    assert len(digests) == 1, "an interrupted job goes on with the same network"
    with pytest.raises(ConfigError, match=r"--weights-match order .* no file is given"):
        open_encoder(f"timm:{TINY}", weights_match="order")
    wrong: Any = "names"
    with pytest.raises(ConfigError, match=r"--weights-match must be exact, partial, order"):
        open_encoder(f"timm:{TINY}", weights=part, weights_match=wrong)


def test_what_is_no_network_gets_a_sentence(
    digits_run: Run, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingInputError, match="no run folder or file"):
        open_encoder(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="timm has no model"):
        open_encoder("timm:resnet_18")
    with pytest.raises(MissingInputError, match="no file of weights"):
        open_encoder(f"timm:{TINY}", weights=tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        open_encoder("timm:test_vit", weights=weights / "w.pth")
    with pytest.raises(
        ConfigError, match=r"goes with timm:NAME or .* has its own\. Leave --weights"
    ):
        open_encoder(digits_run.folder, weights=weights / "w.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged or no safetensors"):
        open_encoder(f"timm:{TINY}", weights=tmp_path / "broken.safetensors")

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("sdclr.backbones.pretrained._timm_weights", offline)
    with pytest.raises(MissingInputError, match=r"--weights FILE"):
        open_encoder(f"timm:{TINY}")
