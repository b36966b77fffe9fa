"""What a loaded backbone takes: images in [0, 1], made of PIL images by itself; anything else is one clear error."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sdclr import load_backbone
from sdclr.backbones import Backbone, BackboneConfig, build_backbone
from sdclr.backbones.weights import save_backbone
from sdclr.data.decoding.decode import open_image
from sdclr.errors import ConfigError, DataError

SMALL = BackboneConfig(name="resnet10", width=2)


@pytest.fixture
def loaded(tmp_path: Path) -> Backbone:
    facts = {"image_size": 32, "feature_dim": 16}
    save_backbone(tmp_path / "b.safetensors", build_backbone(SMALL), SMALL.to_dict(), facts)
    return load_backbone(tmp_path / "b.safetensors")


def photo(width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


BATCH = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ((255 * BATCH).byte(), r"torch.uint8.*255"),
        (255 * BATCH, r"\[0, 1\].*255"),
        ((BATCH - 0.45) / 0.22, r"\[0, 1\].*Do not normalise"),
        (2 * BATCH - 1, r"\[0, 1\].*Do not normalise"),
        (BATCH > 0.5, "torch.bool"),
        (BATCH[0], "batch"),
        (BATCH.permute(0, 2, 3, 1), "channels to the front"),
        (BATCH[:, :1], "RGB"),
        (BATCH.numpy(), "got ndarray"),
        (photo(), "got Image.*preprocess"),
    ],
    ids=[
        "uint8",
        "0..255",
        "normalised",
        "-1..1",
        "bool",
        "no batch",
        "channels last",
        "grey",
        "array",
        "PIL",
    ],
)
def test_images_that_would_give_wrong_features_are_refused(
    loaded: Backbone, images: torch.Tensor, words: str
) -> None:
    for training in (False, True):
        with pytest.raises(DataError, match=words):
            loaded.train(training)(images)


def test_images_in_range_pass_also_those_that_a_resize_has_sharpened(loaded: Backbone) -> None:
    for images in (BATCH, 1.2 * BATCH - 0.1, torch.zeros(2, 3, 32, 32), BATCH[:, :, :20]):
        assert loaded(images).shape == (2, 16)


def test_a_compiler_and_device_meta_do_not_meet_the_look_at_the_range(loaded: Backbone) -> None:
    exported = torch.export.export(loaded, (BATCH,)).module()
    torch.testing.assert_close(exported(BATCH), loaded(BATCH))
    traced = torch.fx.symbolic_trace(loaded)
    assert torch.equal(traced(BATCH), loaded(BATCH))
    assert loaded.to("meta")(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 16)


def test_the_facts_of_the_training_come_with_the_backbone(loaded: Backbone, tmp_path: Path) -> None:
    assert (loaded.image_size, loaded.feature_dim) == (32, 16)
    save_backbone(tmp_path / "old.safetensors", build_backbone(SMALL), SMALL.to_dict(), {})
    old = load_backbone(tmp_path / "old.safetensors")
    assert (old.image_size, old.feature_dim) == (None, 16), "an older file does not tell the size"
    with pytest.raises(ConfigError, match="size=224"):
        old.preprocess(photo())
    assert old.preprocess(photo(), size=24).shape == (3, 24, 24)


def test_a_pil_image_becomes_what_the_backbone_takes(loaded: Backbone) -> None:
    image = loaded.preprocess(photo())
    assert (image.shape, image.dtype) == ((3, 32, 32), torch.float32)
    assert 0 <= float(image.min()) < 0.2
    assert 0.8 < float(image.max()) <= 1
    batch = loaded.preprocess([photo(), photo(300, 50)])
    assert batch.shape == (2, 3, 32, 32)
    assert torch.equal(batch[0], image)
    assert loaded(batch).shape == (2, 16)
    white = loaded.preprocess(Image.new("L", (50, 40), 255))
    assert torch.equal(white, torch.ones(3, 32, 32)), "grey is RGB, 255 is 1"
    assert loaded.double().preprocess(photo()).dtype == torch.float64


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr"])
def test_every_usual_mode_is_converted_without_a_warning(loaded: Backbone, mode: str) -> None:
    image = photo(mode="RGB").convert("L" if mode == "LA" else mode)
    image = image.convert(mode)
    if mode == "P":
        image.info["transparency"] = b"\x00\x01"
    assert loaded.preprocess(image).shape == (3, 32, 32)
    assert mode != "P" or "transparency" in image.info, "the caller's image stays as it was"


def test_a_photograph_is_turned_as_its_exif_tag_says(loaded: Backbone, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo().save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        assert torch.equal(
            loaded.preprocess(image), loaded.preprocess(photo().rotate(-90, expand=True))
        )
        assert torch.equal(
            loaded.preprocess(image, exif_rotation=False), loaded.preprocess(photo())
        )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((40, 40, 3), np.int64), "numbers of int64"),
        ("photo.jpg", "got str.*open"),
        ([], "empty list"),
        (Image.new("I", (40, 40)), "mode I has no agreed range"),
        (Image.new("F", (40, 40)), "mode F"),
    ],
)
def test_what_is_no_eight_bit_image_is_refused(loaded: Backbone, given: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        loaded.preprocess(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [16, 12])
def test_greys_of_16_bits_are_taken_as_in_training(
    loaded: Backbone, tmp_path: Path, bits: int
) -> None:
    levels = np.random.default_rng(0).integers(0, 1 << bits, (40, 44)).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    trained_on = open_image(tmp_path / "a.png", grey_bits=bits)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode.startswith("I;16")
        assert torch.equal(loaded.preprocess(image, grey_bits=bits), loaded.preprocess(trained_on))
        if bits == 16:
            with pytest.raises(DataError, match="which 12 bits cannot"):
                loaded.preprocess(image, grey_bits=12)


class NormalisesItself(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers((images - 0.5) / 0.5)


def test_a_network_that_normalises_itself_can_be_left_alone(tmp_path: Path) -> None:
    network, path = NormalisesItself(), tmp_path / "b.safetensors"
    save_backbone(path, Backbone(network, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), {"name": "custom"}, {})
    torch.testing.assert_close(load_backbone(path, NormalisesItself())(BATCH), network(BATCH))
    save_backbone(path, Backbone(network), {"name": "custom"}, {})
    assert not torch.allclose(load_backbone(path, NormalisesItself())(BATCH), network(BATCH))
    once = load_backbone(path, NormalisesItself(), normalise=False)
    torch.testing.assert_close(once(BATCH), network(BATCH))


@pytest.mark.parametrize(
    ("normalisation", "mean"),
    [
        ("auto", [0.485, 0.456, 0.406]),
        ("imagenet", [0.485, 0.456, 0.406]),
        ("none", [0.0, 0.0, 0.0]),
        ({"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}, [0.1, 0.2, 0.3]),
    ],
)
def test_the_setting_decides_how_the_input_is_normalised(
    normalisation: object, mean: list[float]
) -> None:
    config = BackboneConfig.parse({"name": "resnet10", "width": 2, "normalisation": normalisation})
    torch.testing.assert_close(build_backbone(config).mean.flatten(), torch.tensor(mean))
    with warnings.catch_warnings(), pytest.raises(ConfigError, match="normalisation"):
        BackboneConfig.parse({"normalisation": "imagnet"})
