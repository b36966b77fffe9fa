"""Exports: another program reads them and gets the backbone's features; what a format cannot hold leaves nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner

import sdclr
from read_exports import READERS, SIZE, formats, images
from sdclr import cli, export, load_backbone, pretrain, recipe
from sdclr.any_progress import NoProgress
from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.backbones.exports import network as exported_network
from sdclr.backbones.exports import weights as weight_files
from sdclr.backbones.exports.huggingface import middle_of_timm
from sdclr.backbones.exports.table import EXPORTS
from sdclr.backbones.weights import save_backbone
from sdclr.errors import CheckpointError, ConfigError, MissingInputError, StorageError
from sdclr.jobs.export import _num_found
from sdclr.jobs.pretrain.starting_weights import load_starting_weights
from sdclr.stills import DecodedPicture, still
from slow_variants import slow

OF_ITSELF = {
    "safetensors": ("image_size", "feature_dim"),
    "onnx": ("image_size", "feature_dim", "source"),
}
"""What an export says of itself, by format."""
NO_EXTRA = [name for name, row in EXPORTS.items() if not row.extra]


def saved(path: Path, name: str, image_size: int = SIZE, **values: Any) -> Path:
    """A backbone file whose weights, running statistics and normalisation are nobody's defaults."""
    torch.manual_seed(0)
    constants = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    config = BackboneConfig.parse({"name": name, "normalisation": constants} | values)
    backbone = build_backbone(config)
    for key, tensor in backbone.net.state_dict().items():
        if key.endswith("running_mean"):
            tensor.uniform_(-0.1, 0.1)
        elif key.endswith("running_var"):
            tensor.uniform_(0.8, 1.2)
    save_backbone(path, backbone, config.to_dict(), {"image_size": image_size})
    return path


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network that all formats can hold."""
    folder = tmp_path_factory.mktemp("resnet18")
    return saved(folder / "b.safetensors", "resnet18", stem="large")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of ours that no library has."""
    return saved(tmp_path_factory.mktemp("small") / "b.safetensors", "resnet10", width=4)


def features(source: Path) -> Tensor:
    with torch.no_grad():
        return load_backbone(source)(images())


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_facts_name_no_setting_that_the_network_does_not_have(tmp_path: Path) -> None:
    weights = saved(tmp_path / "b.safetensors", "timm:resnet18")
    facts = json.loads((export(weights, "timm", tmp_path / "t.pth").parent / "t.json").read_text())
    assert {"width", "stem"}.isdisjoint(facts["architecture"])


@pytest.mark.tools
@pytest.mark.parametrize("format", list(formats()))
def test_another_program_computes_the_same_features(
    format: str, resnet18: Path, tmp_path: Path
) -> None:
    row = EXPORTS[format]
    out = export(resnet18, format, tmp_path / f"theirs{row.suffix}")
    with torch.no_grad():
        (found, facts), wanted = READERS[format](out), features(resnet18)
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(found, wanted, rtol=0, atol=row.tolerance)
    known = {"image_size": SIZE, "feature_dim": 512, "source": "b.safetensors"}
    told = {name: facts[name] for name in OF_ITSELF.get(format, ())}
    assert told == {name: known[name] for name in told}
    files = [name.format(stem="theirs") for name in row.files]
    assert sorted(os.listdir(out if row.is_folder else tmp_path)) == sorted(files)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o666 & ~umask(), "whoever may read the others"
            assert str(resnet18.parent).encode() not in path.read_bytes(), "places stay private"
            assert b"sdclr/backbones/" not in path.read_bytes(), f"a line of the source in {path}"


@pytest.mark.tools
@pytest.mark.parametrize("format", [name for name in NO_EXTRA if name != "torch-export"])
def test_a_new_run_starts_from_what_was_exported(
    format: str, resnet18: Path, tmp_path: Path
) -> None:
    out = export(resnet18, format, tmp_path / f"theirs{EXPORTS[format].suffix}")
    values = {"name": "resnet18", "stem": "large", "width": 64}
    config = recipe("digits_simclr").with_values({"weights": str(out), "backbone": values})
    backbone = build_backbone(config.backbone)
    load_starting_weights(backbone, config, config.backbone, NoProgress())
    with torch.no_grad():
        found = backbone.eval()(images())
    torch.testing.assert_close(found, features(resnet18), rtol=0, atol=1e-5)


@pytest.mark.journeys
@pytest.mark.parametrize("format", ["torch-export"])
def test_no_training_starts_from_a_program(format: str, small: Path, tmp_path: Path) -> None:
    out = export(small, format, tmp_path / "p.pt2")
    config = recipe("digits_simclr").with_values({"weights": str(out), "epochs": 1})
    with pytest.raises(CheckpointError, match="exported program"):
        pretrain(config, tmp_path / "run")


@pytest.mark.journeys
@pytest.mark.parametrize(
    ("format", "values"),
    [
        ("timm", {"name": "resnet18", "stem": "small"}),
        ("torchvision", {"name": "resnet18", "stem": "large", "width": 8}),
        ("huggingface", {"name": "resnet10", "stem": "large"}),
        ("torchvision", {"name": "resnet10", "stem": "large"}),
        ("timm", {"name": "resnet18", "stem": "large", "width": 8}),
    ],
    ids=str,
)
def test_a_network_that_a_format_cannot_hold_names_those_that_can(
    format: str, values: dict[str, Any], tmp_path: Path
) -> None:
    name, others = values["name"], {key: one for key, one in values.items() if key != "name"}
    source = saved(tmp_path / "b.safetensors", name, **others)
    with pytest.raises(ConfigError) as raised:
        export(source, format, tmp_path / f"out{EXPORTS[format].suffix}")
    words = str(raised.value)
    assert f"--format {format} cannot hold this network, {name} with backbone.width=" in words
    assert words.endswith("Formats that can: safetensors, torch-export, onnx.")
    assert os.listdir(tmp_path) == ["b.safetensors"]


@pytest.mark.tools
@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("torchvision:resnet18", {}, {"timm", "torchvision", "huggingface"}),
        slow("timm:resnet18", {}, {"timm", "torchvision", "huggingface"}),
        ("timm:resnet10t", {}, {"timm", "huggingface"}),
        slow("timm:efficientnet_b0", {}, {"timm", "huggingface"}),
        slow("torchvision:shufflenet_v2_x0_5", {}, {"torchvision"}),
        ("torchvision:squeezenet1_1", {}, {"torchvision"}),
        ("timm:test_vit", {"options": {"img_size": SIZE}}, {"timm", "huggingface"}),
    ],
)
def test_the_networks_of_a_library_go_where_they_compute_the_same(
    name: str, values: dict[str, Any], wanted: set[str], tmp_path: Path
) -> None:
    source, held = saved(tmp_path / "b.safetensors", name, **values), set()
    for format in ("timm", "torchvision", "huggingface"):
        try:
            out = export(source, format, tmp_path / f"{format}{EXPORTS[format].suffix}")
        except ConfigError:
            continue
        held.add(format)
        with torch.no_grad():
            torch.testing.assert_close(
                READERS[format](out).output, features(source), rtol=0, atol=1e-5
            )
    assert held == wanted


def test_what_does_not_read_back_the_same_is_not_kept(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(
        weight_files,
        "read_safetensors",
        lambda trained, folder, stem: lambda pictures: trained.backbone(pictures) + 1e-3,
    )
    with pytest.raises(ConfigError, match=r"differ by 0\.00.*nothing was kept"):
        export(small, "safetensors", tmp_path / "o.safetensors")
    assert os.listdir(tmp_path) == []


def test_a_writer_that_fails_leaves_nothing(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(trained: object, folder: Path, stem: str) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("no such operator\nat line 3")

    monkeypatch.setattr("sdclr.backbones.exports.programs.write_program", fail)
    with pytest.raises(ConfigError, match="no such operator Nothing was kept"):
        export(small, "torch-export", tmp_path / "o.pt2")
    assert os.listdir(tmp_path) == []


@pytest.mark.journeys
@pytest.mark.parametrize("format", ["safetensors", "torchvision", "torch-export"])
def test_a_full_disk_is_no_fault_of_the_format(format: str, resnet18: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_960, before[1]))
    try:
        with pytest.raises(StorageError, match="cannot be written: File too large"):
            export(resnet18, format, tmp_path / f"x{EXPORTS[format].suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_none_and_another_shape_count_as_different() -> None:
    difference = exported_network.difference
    one = torch.tensor([[100.0, 2.0]])
    assert difference(one, one) == 0
    assert difference(one + 1e-3, one) == pytest.approx(1e-5, rel=0.05)
    assert difference(one * float("nan"), one) == float("inf")
    assert difference(one.repeat(2, 1), one) == float("inf")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_says_what_to_install(
    missing: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == missing else found(name)
    )
    with pytest.raises(ConfigError, match=rf'needs .*{missing}.*pip install "sdclr\[onnx\]"'):
        export(small, "onnx", tmp_path / "o.onnx")
    assert os.listdir(tmp_path) == []


@pytest.mark.journeys
@pytest.mark.parametrize(
    "format",
    [
        name if name in ("huggingface", "safetensors") else slow(name)
        for name in NO_EXTRA
        if name != "torch-export"
    ],
)
def test_what_is_there_stays_unless_it_is_to_be_replaced(
    format: str, resnet18: Path, tmp_path: Path
) -> None:
    row = EXPORTS[format]
    out = tmp_path / f"theirs{row.suffix}"
    files = [name.format(stem="theirs") for name in row.files]
    folder = out if row.is_folder else tmp_path
    folder.mkdir(exist_ok=True)
    (folder / files[0]).write_text("precious")
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="--overwrite"):
        export(resnet18, format, out)
    assert (folder / files[0]).read_text() == "precious"
    export(resnet18, format, out, overwrite=True)
    assert (folder / files[0]).read_bytes() != b"precious"
    assert (folder / "thesis.txt").read_text() == "precious"
    assert sorted(os.listdir(folder)) == sorted({*files, "thesis.txt"})


def test_a_wrong_format_name_or_place_is_refused_before_any_work(
    small: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no format 'pickle'; there are timm, .*huggingface\."):
        export(small, "pickle")
    with pytest.raises(ConfigError, match=r"named \*\.pth"):
        export(small, "timm", tmp_path / "out.pt")
    with pytest.raises(ConfigError, match="make it first"):
        export(small, "safetensors", tmp_path / "no" / "o.safetensors")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        export(small, "huggingface", tmp_path / "file")
    with pytest.raises(MissingInputError):
        export(tmp_path / "nothing", "safetensors", tmp_path / "o.safetensors")
    assert os.listdir(tmp_path) == ["file"]


def test_a_network_of_the_users_own_is_exported_with_it(tmp_path: Path) -> None:
    def network() -> nn.Module:
        layers = [nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers)

    settings = {"backbone.name": "custom", "epochs": 1, "views.size": 8, "batch_size": 200}
    run = pretrain(
        recipe("digits_simclr").with_values(settings), tmp_path / "run", network=network()
    )
    out = export(run, "safetensors", network=network())
    assert out == tmp_path / "run" / "exports" / "safetensors.safetensors"
    assert set(load_file(out)) == {"0.weight", "0.bias"}
    with pytest.raises(ConfigError, match=r"not one of timm's.*safetensors, torch-export, onnx"):
        export(run, "timm", network=network())
    out.unlink()
    with pytest.raises(ConfigError):
        export(run, "timm", network=network())
    assert not out.parent.exists(), "an empty folder is not left behind"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> sdclr.Run:
    """A run that all formats can hold, evaluated."""
    settings = [
        "backbone.name=resnet18",
        "backbone.stem=large",
        "backbone.width=64",
        "views.size=8",
        "health_every_epochs=0",
        "epochs=1",
        "batch_size=200",
        "device=cpu",
        "data.imbalance_ratio=100",
    ]
    config = recipe("digits_sdclr").with_overrides(settings)
    run = pretrain(config, tmp_path_factory.mktemp("evaluated") / "my_run")
    sdclr.evaluate(run, probes=["knn"], device="cpu")
    return run


@pytest.mark.journeys
def test_the_command_line_writes_a_folder_with_a_card_of_the_run(evaluated: sdclr.Run) -> None:
    result = CliRunner().invoke(
        cli.app, ["export", str(evaluated.folder), "--format", "huggingface"]
    )
    assert result.exit_code == 0, result.output
    folder = evaluated.folder / "exports" / "huggingface"
    assert result.output == f"huggingface: {folder}\n"
    card = (folder / "README.md").read_text()
    probe = evaluated.read_evaluation("cached")["probes"]["knn"]
    right = 100 * np.mean(probe["per_class_accuracy"])  # as many test images of each class
    for words in (
        "# my_run",
        "SDCLR",
        "digits split 1",
        "| prune_ratio | 0.9 |",
        "| epochs | 1 |",
        "No label was used",
        f"| 360 | {right:.2f} (",
        "## Limits",
        "Not chosen.",
        'create_model("local-dir:PATH", pretrained=True)',
    ):
        assert words in card, words
    assert "license:" not in card.split("---")[1], "the user's choice"
    assert str(evaluated.folder.parent) not in card


@pytest.mark.parametrize("size", [8, 32, 64, 96, 160, 224, 256, 299, 384])
def test_timm_prepares_an_image_file_as_embed_does(size: int) -> None:
    constants = {"mean": (0, 0, 0), "std": (1, 1, 1), "input_size": (3, size, size)}
    prepare = timm.data.create_transform(**constants, **middle_of_timm(size))
    waves = np.sin(np.linspace(0, 900, 3 * 211 * 157)).reshape(211, 157, 3)
    image = Image.fromarray((127 + 120 * waves).astype(np.uint8))
    ours = torch.from_numpy(still(DecodedPicture(image), size).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(prepare(image), ours, rtol=0, atol=1e-6)


@pytest.mark.journeys
def test_a_folder_says_how_timm_prepares_images(tmp_path: Path) -> None:
    source = saved(tmp_path / "b.safetensors", "resnet18", image_size=32, stem="large")
    out = export(source, "huggingface", tmp_path / "theirs")
    network = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    found = timm.data.resolve_model_data_config(network)
    assert {name: found[name] for name in middle_of_timm(32)} == middle_of_timm(32)


@pytest.mark.journeys
def test_timm_prepares_images_as_a_run_on_arrays_saw_its_own(
    evaluated: sdclr.Run, tmp_path: Path
) -> None:
    out = export(evaluated, "huggingface", tmp_path / "theirs")
    network = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    data = sdclr.data.build_data(sdclr.data.DataConfig(name="digits"))
    size = network.pretrained_cfg["input_size"][-1]
    own = next(iter(data.train.stills(size)))[:5]
    mean, std = (torch.tensor(network.pretrained_cfg[k])[:, None, None] for k in ("mean", "std"))
    for place, one in enumerate(own):
        image = Image.fromarray(data.train.images[place].permute(1, 2, 0).numpy())  # type: ignore[attr-defined]
        prepared = (prepare(image) * std + mean) * 255
        assert (prepared - one).abs().max() <= 2, "two bicubic filters, in whole levels"
    assert "resizes the whole image" in (out / "README.md").read_text()


def test_a_path_that_is_not_text_is_refused_by_its_option(
    evaluated: sdclr.Run, tmp_path: Path
) -> None:
    out = tmp_path / os.fsdecode(b"odd\xff.safetensors")
    with pytest.raises(ConfigError, match=r"not UTF-8 text\. Choose another --out"):
        export(evaluated, "safetensors", out)
    assert os.listdir(tmp_path) == []


def test_of_no_backbone_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "blank").mkdir()
    with pytest.raises(MissingInputError, match="backbone"):
        export(tmp_path / "blank", "safetensors")


def test_the_code_of_the_card_runs(
    evaluated: sdclr.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export(evaluated, "huggingface", tmp_path / "theirs")
    card = (out / "README.md").read_text()
    waves = np.sin(np.linspace(0, 6, 3 * 50 * 60)).reshape(50, 60, 3)
    Image.fromarray((127 + 120 * waves).astype(np.uint8)).save(tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0].replace("PATH", str(out)), names)
    assert names["features"].shape == (1, 512)
    backbone = load_backbone(evaluated)
    with torch.no_grad():
        side = backbone.image_size
        whole = Image.open("a.jpg").resize((side, side), Image.Resampling.BICUBIC)
        ours = backbone(torch.from_numpy(np.array(whole)).permute(2, 0, 1)[None] / 255)
    torch.testing.assert_close(names["features"], ours, rtol=1e-4, atol=1e-4)


def test_a_card_counts_the_images_of_a_run_without_labels(tmp_path: Path) -> None:
    run = sdclr.Run(tmp_path)
    assert _num_found(run) is None
    run.write_json("images.json", {"fingerprint": "00", "found": 40, "skipped": [], "sizes": "00"})
    assert _num_found(run) == 40


def test_numbers_of_another_backbone_are_left_out_of_the_card(
    evaluated: sdclr.Run, tmp_path: Path
) -> None:
    path = evaluated.evaluation_path("cached")
    before = path.read_text()
    content = json.loads(before) | {"backbone": "0" * 16}
    try:
        path.write_text(json.dumps(content))
        with pytest.warns(UserWarning, match="measured on another backbone"):
            out = export(evaluated, "huggingface", tmp_path / "theirs")
    finally:
        path.write_text(before)
    assert "Not evaluated" in (out / "README.md").read_text()
