"""Runs on images of other than 3 channels: what they record, and everything that reads them afterwards."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import sdclr
from sdclr.any_progress import NoProgress
from sdclr.backbones import BackboneConfig, Normalisation, build_backbone
from sdclr.cli import app
from sdclr.data import DataConfig, build_data
from sdclr.data.collections.image_files import ImageFiles
from sdclr.errors import ConfigError, DataError
from sdclr.run import Run
from sdclr.settings import PretrainConfig
from sdclr.storage import row_parts

pytestmark = pytest.mark.usefixtures("light_figures")

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 18, 20, 5), dtype=np.uint8)
SMALL = {"epochs": 1, "views.size": 8, "backbone.width": 4, "batch_size": 20}
TINY = (
    "epochs=1",
    "backbone.width=4",
    "views.size=16",
    "batch_size=20",
    "device=cpu",
    "health_every_epochs=0",
)


def cli(*words: str) -> str:
    found = CliRunner().invoke(app, list(words))
    assert found.exit_code == 0, f"{found.output} {found.exception}"
    return found.output


def error_of(*words: str) -> str:
    found = CliRunner().invoke(app, list(words))
    assert found.exit_code == 1, found.output
    return str(found.exception or found.output)


@pytest.fixture(scope="module")
def npy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("npy")
    for number, pixels in enumerate(PIXELS):
        np.save(folder / f"{number:02d}.npy", pixels)
    return folder


@pytest.fixture(scope="module")
def run(npy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "five"
    cli("pretrain", str(npy_folder), "data.channels=5", "--out", str(out), *TINY)
    return Run(out)


def test_network_and_normalisation_follow_and_are_recorded(run: Run) -> None:
    backbone = sdclr.load_backbone(run)
    assert backbone.channels == 5
    # of a sample that holds all images: the mean of the stills' pixels
    folder = json.loads((run.folder / "environment.json").read_text())
    constants = folder["resolved"]["normalisation"]
    assert constants["mean"] == pytest.approx(PIXELS.mean(axis=(0, 1, 2)) / 255, abs=0.03)
    assert backbone.std.flatten().tolist() == pytest.approx(constants["std"])
    views = PretrainConfig.from_yaml(run.config_path).views
    assert (views.jitter, views.grey) == ((0.4, 0.4, 0.0, 0.0), 0.0)


def test_the_network_sees_an_image_as_embed_and_preprocess_do(run: Run, tmp_path: Path) -> None:
    cli("embed", str(run.folder), "--out", str(tmp_path / "own.npz"), "--device", "cpu")
    # other images: the channels are the network's
    folder = run.settings()["data"]["path"]
    cli("embed", str(run.folder), folder, "--out", str(tmp_path / "a.npz"), "--device", "cpu")
    own, again = (np.load(tmp_path / name)["features"] for name in ("own.npz", "a.npz"))
    np.testing.assert_array_equal(own, again)
    backbone = sdclr.load_backbone(run)
    with torch.no_grad():
        alone = backbone(torch.stack([backbone.preprocess(one) for one in PIXELS]))
    np.testing.assert_allclose(own, alone.numpy(), atol=1e-5)


def test_parts_that_lie_among_the_images_are_none(
    run: Run, npy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(NoProgress):
        left = 5

        def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
            self.left -= amount
            if self.left < 0:
                raise KeyboardInterrupt

    monkeypatch.setattr(row_parts, "ROWS_PER_PART", 4)
    photos = shutil.copytree(npy_folder, tmp_path / "photos")
    data = DataConfig(name="images", path=str(photos), subset="all", channels=5)
    with pytest.raises(KeyboardInterrupt):
        sdclr.embed(run.folder, data, photos / "f.npz", progress=Stopped())
    assert list((photos / "f.npz.partial").glob("*.npy")), "which are .npy files, as the images are"
    whole = np.load(sdclr.embed(run.folder, data, photos / "f.npz"))
    assert len(whole["features"]) == len(PIXELS)


@pytest.mark.journeys
def test_everything_that_reads_a_run_takes_its_channels(run: Run, tmp_path: Path) -> None:
    cli("mine", str(run.folder), "--out", str(tmp_path / "mined"), "--device", "cpu")
    assert (tmp_path / "mined" / "index.html").is_file()
    cli("report", str(run.folder), "--out", str(tmp_path / "report"))
    picture = next((run.folder / "examination").glob("view-*.jpg"))
    with Image.open(picture) as shown:
        assert shown.mode == "RGB"
    cli("evaluate", str(run.folder), "--against", "pixels,untrained", "--device", "cpu")
    assert "counts red, green and blue" in error_of(
        "evaluate", str(run.folder), "--against", "colours", "--device", "cpu"
    )
    for name in ("safetensors", "torch-export"):
        out = tmp_path / f"x.{'pt2' if name == 'torch-export' else name}"
        cli("export", str(run.folder), "--format", name, "--out", str(out))
    assert "torchvision's networks take 3 channels, and this one takes 5" in error_of(
        "export", str(run.folder), "--format", "torchvision", "--out", str(tmp_path / "x.pth")
    )


def test_images_of_other_channels_than_the_network_takes_are_one_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.new("RGB", (20, 20)).save(tmp_path / "photos" / f"{number}.png")
    said = error_of("embed", str(run.folder), str(tmp_path / "photos"), "data.channels=3")
    assert "takes images of 5 channels, and these were read with 3" in said
    assert [path.name for path in tmp_path.iterdir()] == ["photos"], "no OUT.partial is left"
    said = error_of("embed", str(run.folder), str(tmp_path / "photos"))
    assert "0.png has 3 (R, G, B) channels, and data.channels is 5" in said


def test_a_run_on_arrays_evaluates_with_its_channels(tmp_path: Path) -> None:
    labels = np.arange(40) % 2
    arrays = {"train_images": PIXELS, "train_labels": labels}
    np.savez(tmp_path / "a.npz", **arrays, test_images=PIXELS, test_labels=labels)
    config = sdclr.recipe("digits_simclr").with_values(
        {
            "data": {"name": "arrays", "path": str(tmp_path / "a.npz"), "channels": 5},
            "data.imbalance_ratio": 2.0,
            "epochs": 1,
            "views.size": 8,
            "backbone.width": 4,
            "batch_size": 8,
        }
    )
    found = sdclr.evaluate(sdclr.pretrain(config, tmp_path / "run"), probes=["knn"])
    assert set(found.probes) == {"knn"}


def test_images_given_from_python_bring_their_channels_along(tmp_path: Path) -> None:
    run = sdclr.pretrain(
        sdclr.recipe("digits_simclr").with_values({"data.channels": 5, **SMALL}),
        tmp_path / "run",
        images=PIXELS,
    )
    with sdclr.given(PIXELS):
        assert sdclr.examine(run)["num_images"] == 40
    with (
        sdclr.given(PIXELS[..., :3]),
        pytest.raises(ConfigError, match=r"have 3 channels, and data\.channels is 5"),
    ):
        sdclr.examine(run)
    with pytest.raises(DataError, match=r"shape \[18, 20, 5\], and data\.channels=3"):
        sdclr.pretrain(sdclr.recipe("digits_simclr"), tmp_path / "other", images=PIXELS)


def test_files_of_every_kind_with_the_same_channels_are_the_same_images(tmp_path: Path) -> None:
    four = PIXELS[0, ..., :4]
    Image.fromarray(four).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", four)
    np.save(tmp_path / "c.npy", np.moveaxis(four, 2, 0).astype(np.uint16) * 257)
    pages = [Image.fromarray(np.ascontiguousarray(four[..., c])) for c in range(4)]
    pages[0].save(tmp_path / "d.tif", save_all=True, append_images=pages[1:])
    found = build_data(DataConfig(name="images", path=str(tmp_path), subset="all", channels=4))
    images, bad = found.train.to(torch.device("cpu")).verified("raise", lambda done: None)
    stills = torch.cat(list(images.stills(8)))
    assert len(images) == 4
    assert not bad
    assert all(torch.equal(stills[0], one) for one in stills[1:])


def test_a_folder_of_photographs_keeps_its_npy_files_out(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[0, ..., :3]).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", np.zeros((4, 512)))
    assert build_data(DataConfig(name="images", path=str(tmp_path), subset="all")).train.names == (
        "a.png",
    )
    # a list names what it means
    np.save(tmp_path / "c.npy", PIXELS[0, ..., :3])
    (tmp_path / "list.csv").write_text("path\na.png\nc.npy\n")
    listed = build_data(
        DataConfig(name="images", path=str(tmp_path / "list.csv"), subset="all")
    ).train.to(torch.device("cpu"))
    stills = torch.cat(list(listed.stills(8)))
    assert torch.equal(stills[0], stills[1])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"II*\0" + b"\0" * 40,
            "TIFF of a kind that Pillow cannot read, such as one of more than 4",
        ),
        (b"\x93NUMPY\x01", "is damaged"),
        (b"no array", "is damaged"),
    ],
)
def test_a_file_that_cannot_be_decoded_is_one_clear_error(
    content: bytes, words: str, tmp_path: Path
) -> None:
    name = "a.tif" if content.startswith(b"II") else "a.npy"
    (tmp_path / name).write_bytes(content)
    files = ImageFiles(tmp_path, (name,), None, channels=5)
    with pytest.raises(DataError, match=rf"{name} .*{words}"):
        files.size(0)


@pytest.mark.parametrize("name", ["resnet18", "timm:test_resnet", "torchvision:resnet18"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_the_first_convolution_follows(name: str, channels: int) -> None:
    options = {"backbone.width": 4} if name == "resnet18" else {}
    config = BackboneConfig(name=name).with_values(
        {key.removeprefix("backbone."): value for key, value in options.items()}
    )
    backbone = build_backbone(config, channels)
    first = next(one for one in backbone.modules() if isinstance(one, torch.nn.Conv2d))
    assert first.in_channels == channels
    assert backbone.eval()(torch.rand(2, channels, 32, 32)).shape[0] == 2
    with pytest.raises(DataError, match=f"takes images of {channels} channels"):
        backbone(torch.rand(2, channels + 1, 32, 32))
    plain, followed = build_backbone(config).state_dict(), backbone.state_dict()
    assert len([key for key in plain if plain[key].shape != followed[key].shape]) == 1


def test_a_registered_network_is_told_the_channels_where_it_asks() -> None:
    def asks(channels: int = 3) -> torch.nn.Module:
        conv = torch.nn.Conv2d(channels, 4, 3)
        return torch.nn.Sequential(conv, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())

    from sdclr.backbones.table import BACKBONES

    with BACKBONES.temporarily():
        sdclr.register_backbone(asks)
        backbone = build_backbone(BackboneConfig(name="asks"), 7)
    assert backbone(torch.rand(2, 7, 8, 8)).shape == (2, 4)


def test_settings_that_do_not_go_with_the_channels_are_refused() -> None:
    config = sdclr.recipe("digits_sdclr")
    with pytest.raises(ConfigError, match=r"views\.grey=0\.2 .*change colours.*4 channels"):
        config.with_values({"data.channels": 4, "views.grey": 0.2})
    with pytest.raises(ConfigError, match=r"Set views\.grey=0 and views\.jitter=\[0\.3,0\.2,0,0\]"):
        config.with_values({"data.channels": 1, "views.jitter": [0.3, 0.2, 0.4, 0.0]})
    with pytest.raises(ConfigError, match=r"channels=4 is not for cifar10"):
        DataConfig.parse({"name": "cifar10", "path": "x", "channels": 4})
    with pytest.raises(ConfigError, match="store keeps images of 3 channels"):
        DataConfig.parse({"name": "images", "path": "x", "store": "y", "channels": 4})
    with pytest.raises(ConfigError, match=r"pretrained=true .* 3 channels, and data.channels is 4"):
        build_backbone(BackboneConfig(name="resnet18", stem="large", pretrained=True), 4)
    with pytest.raises(ConfigError, match=r"normalisation=imagenet is for 3 channels"):
        build_backbone(BackboneConfig(normalisation="imagenet"), 4)
    two = Normalisation(mean=(0.1, 0.2), std=(0.1, 0.2))
    with pytest.raises(ConfigError, match=r"normalisation has 2 numbers, and images have 4"):
        build_backbone(BackboneConfig(normalisation=two), 4)
    with pytest.raises(ConfigError, match=r"in_chans=4: the channels of the images are data"):
        build_backbone(BackboneConfig(name="timm:test_resnet", options={"in_chans": 4}))


def test_a_method_that_needs_colours_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = sdclr.recipe("digits_simclr").with_values(
        {"data.channels": 1, "method.name": "bcl_i", "epochs": 1, "views.size": 8}
    )
    with pytest.raises(ConfigError, match="operations of RandAugment, which are defined for 3"):
        sdclr.pretrain(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_channel_that_is_the_same_everywhere_is_a_warning(tmp_path: Path) -> None:
    pixels = PIXELS.copy()
    pixels[..., 2] = 9
    config = sdclr.recipe("digits_simclr").with_values({"data.channels": 5, **SMALL})
    with pytest.warns(UserWarning, match="channels 2 .* same level in every pixel of 40 images"):
        run = sdclr.pretrain(config, tmp_path / "run", images=pixels)
    assert sdclr.load_backbone(run).std.flatten()[2] == 1


def test_grey_digits_in_one_channel_resume_as_if_never_stopped(tmp_path: Path) -> None:
    config = sdclr.recipe("digits_simclr").with_values(
        {"data.channels": 1, "epochs": 1, "views.size": 8, "backbone.width": 4}
    )
    backbone = sdclr.load_backbone(sdclr.pretrain(config, tmp_path / "run"))
    assert (backbone.channels, backbone.net.conv1.weight.shape[1]) == (1, 1)
    # the same call finds it finished, with the same constants
    again = sdclr.load_backbone(sdclr.pretrain(config, tmp_path / "run"))
    assert torch.equal(again.mean, backbone.mean)


def test_the_block_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    section = page.partition("### Channels")[2].partition("\n### ")[0]
    (block,) = re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block, "docs/data.md", "exec", dont_inherit=True), names)
    features = names["features"]
    assert isinstance(features, torch.Tensor)
    assert len(features) == 1


def test_timm_loads_an_export_of_five_channels_as_its_card_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"name": "given", "subset": "all", "channels": 5}
    config = sdclr.recipe("digits_simclr").with_values(
        {"data": data, "backbone.name": "timm:test_resnet", "epochs": 1, "views.size": 32}
    )
    run = sdclr.pretrain(config.with_values({"batch_size": 20}), "run", images=PIXELS)
    sdclr.export(run.folder, "huggingface", Path("hub"))
    card = Path("hub", "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", card, flags=re.MULTILINE | re.DOTALL)
    pixels = np.random.default_rng(3).integers(0, 256, (32, 32, 5), dtype=np.uint8)
    np.save("a.npy", pixels)
    names: dict[str, object] = {}
    exec(compile(block.replace("PATH", "hub", 1), "card", "exec", dont_inherit=True), names)
    with torch.no_grad():
        expected = sdclr.load_backbone(run)(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    features = names["features"]
    assert isinstance(features, torch.Tensor)
    # the card writes four digits of mean and std
    torch.testing.assert_close(features, expected, rtol=0, atol=5e-3 * float(expected.abs().max()))
