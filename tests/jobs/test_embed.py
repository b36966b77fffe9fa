"""Features of any images in one file: equal to the backbone's, resumable, and refused where nothing good could come."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from typer.testing import CliRunner

from digits_run import train_digits
from image_folder_stand_in import make_folder
from imagenet_stand_in import make_imagenet
from sdclr import Run, cli, load_backbone
from sdclr.data import DataConfig, build_data
from sdclr.errors import CheckpointError, ConfigError, MissingInputError
from sdclr.jobs import embed as embed_module
from sdclr.jobs.embed import embed
from sdclr.storage import row_parts
from stop_after import StopAfter

DIGITS = DataConfig(name="digits")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_digits(tmp_path_factory.mktemp("runs") / "x")


def expected(run: Run) -> np.ndarray:
    images = build_data(DIGITS).train
    with torch.inference_mode():
        return torch.cat(
            [load_backbone(run.folder)(batch / 255) for batch in images.stills(8)]
        ).numpy()


def test_a_npz_holds_features_names_and_labels(run: Run, tmp_path: Path) -> None:
    out = embed(run.folder, DIGITS, tmp_path / "f.npz")
    with np.load(out, allow_pickle=False) as file:
        np.testing.assert_allclose(file["features"], expected(run), rtol=1e-4, atol=1e-5)
        assert file["features"].dtype == np.float32
        assert file["path"].tolist() == [str(i) for i in range(1_437)]
        assert file["label"].tolist() == build_data(DIGITS).train.labels.tolist()  # type: ignore[union-attr]
        assert file["class_names"].tolist() == list("0123456789")
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"], "nothing is left beside it"


def test_parquet_says_the_same(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_parts, "ROWS_PER_PART", 500)
    table = pyarrow.parquet.read_table(embed(run.folder, DIGITS, tmp_path / "f.parquet"))
    assert table.column_names == ["path", "features", "label", "class"]
    features = np.array(table["features"].to_pylist(), dtype=np.float32)
    np.testing.assert_allclose(features, expected(run), rtol=1e-4, atol=1e-5)
    assert table["class"].to_pylist() == [str(label) for label in table["label"].to_pylist()]


def test_an_interrupted_call_goes_on_where_it_stopped(run: Run, tmp_path: Path) -> None:
    # parts of 256 images
    whole = embed(run.folder, DIGITS, tmp_path / "whole.npz")
    for images in (700, 400):
        with pytest.raises(KeyboardInterrupt):
            embed(run.folder, DIGITS, tmp_path / "f.npz", progress=StopAfter(images))
    last = StopAfter(10_000)
    embed(run.folder, DIGITS, tmp_path / "f.npz", progress=last)
    assert last.begun_at == [768], "two parts of the first call, one of the second"
    with np.load(whole) as a, np.load(tmp_path / "f.npz") as b:
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


def test_a_killed_call_goes_on_when_images_have_come_gone_and_changed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_parts, "ROWS_PER_PART", 4)
    make_folder(tmp_path / "photos", {"cat": 9, "dog": 5})
    photos = sorted((tmp_path / "photos").rglob("*.*"))
    data = DataConfig(name="images", path=str(tmp_path / "photos"), labels="folders", subset="all")
    out = tmp_path / "f.npz"
    with pytest.raises(KeyboardInterrupt):
        embed(run.folder, data, out, progress=StopAfter(9))
    shutil.copy(photos[3], photos[0].with_name("00_new.png"))
    photos[2].unlink()
    shutil.copy(photos[12], photos[5])
    last = StopAfter(10_000)
    embed(run.folder, data, out, progress=last)
    # two parts of four, less what is gone and what has changed
    assert last.begun_at == [6]
    with np.load(out) as found, np.load(embed(run.folder, data, tmp_path / "whole.npz")) as whole:
        np.testing.assert_allclose(found["features"], whole["features"], rtol=1e-4, atol=1e-5)
        for name in ("path", "label", "class_names"):
            np.testing.assert_array_equal(found[name], whole[name])
    assert sorted(os.listdir(tmp_path)) == ["f.npz", "photos", "whole.npz"]


def test_a_folder_of_shards_holds_what_one_file_does_and_goes_on_where_it_stopped(
    run: Run, tmp_path: Path
) -> None:
    whole = embed(run.folder, DIGITS, tmp_path / "whole.npz")
    out = tmp_path / "shards"
    with pytest.raises(KeyboardInterrupt):
        embed(run.folder, DIGITS, out, progress=StopAfter(700), images_per_shard=500)
    assert not out.exists(), "the folder is whole or not there"
    last = StopAfter(10_000)
    embed(run.folder, DIGITS, out, progress=last, images_per_shard=500)
    assert last.begun_at == [512]
    index = json.loads((out / "index.json").read_text())
    assert (index["num_images"], index["feature_dim"]) == (1_437, 32)
    assert [(one["first"], one["num_images"]) for one in index["shards"]] == [
        (0, 500),
        (500, 500),
        (1000, 437),
    ]
    names = [one["file"] for one in index["shards"]]
    assert sorted(os.listdir(out)) == ["index.json", *names]
    assert sorted(os.listdir(tmp_path)) == ["shards", "whole.npz"]
    with np.load(whole) as file:
        for name in file.files:
            parts = [np.load(out / one)[name] for one in names]
            found = parts[0] if name == "class_names" else np.concatenate(parts)
            np.testing.assert_array_equal(found, file[name])


def test_a_folder_of_shards_replaces_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for out, images, words in (
        ("there", 5, "exists"),
        ("f.npz", 5, r"without \.npz"),
        ("new", 0, "at least 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            embed(run.folder, DIGITS, tmp_path / out, images_per_shard=images)
    result = CliRunner().invoke(cli.app, ["embed", str(run.folder), "x", "--shards", "5"])
    assert isinstance(result.exception, ConfigError)
    assert "give --out FOLDER" in str(result.exception)
    assert os.listdir(tmp_path) == ["there"]


def test_what_belongs_to_other_weights_is_not_gone_on_with(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(run.folder, DIGITS, tmp_path / "f.npz", progress=StopAfter(700))
    identity = tmp_path / "f.npz.partial" / "identity.json"
    identity.write_text(
        json.dumps(json.loads(identity.read_text()) | {"identity": "other weights"})
    )
    afresh = StopAfter(10_000)
    with pytest.warns(UserWarning, match="they are made again"):
        embed(run.folder, DIGITS, tmp_path / "f.npz", progress=afresh)
    assert afresh.begun_at == [0]


def test_files_keep_their_names(run: Run, tmp_path: Path) -> None:
    made = make_imagenet(tmp_path, 3)
    config = DataConfig(name="imagenet100", path=str(made.root), splits_dir=str(made.splits_dir))
    with np.load(embed(run.folder, config, tmp_path / "f.npz")) as file:
        assert file["features"].shape == (36, 32)
        assert all(os.path.isfile(made.root / path) for path in file["path"])
        assert {path.split("/")[1] for path in file["path"]} == set(file["class_names"])


def test_what_cannot_be_written_or_read_is_refused_before_any_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_module, "build_data", lambda *_: pytest.fail("read the images"))
    (tmp_path / "there.npz").touch()
    for name, words in (
        ("f.txt", "parquet or"),
        ("there.npz", "exists"),
        ("no/f.npz", "make it first"),
    ):
        with pytest.raises(ConfigError, match=words):
            embed(run.folder, DIGITS, tmp_path / name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs pyarrow: pip install"):
        embed(run.folder, DIGITS, tmp_path / "f.parquet")
    with pytest.raises(MissingInputError, match="not finished"):
        embed(tmp_path, DIGITS, tmp_path / "f.npz")
    with pytest.raises(CheckpointError, match="cut off or not"):
        embed(tmp_path / "there.npz", DIGITS, tmp_path / "f.npz")


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_the_other_columns_of_a_table_travel_with_the_features(
    run: Run, tmp_path: Path, suffix: str
) -> None:
    make_folder(tmp_path / "photos", {"cat": 2})
    table = tmp_path / "t.csv"
    table.write_text(
        "camera;../evil;path;features;file\nk1;u;photos/cat/0.jpg;x;m\n;längerer Text;photos/cat/1.jpg;y;n\n"
    )
    data = DataConfig.parse({"name": "images", "path": str(table), "subset": "all"})
    out = embed(run.folder, data, tmp_path / f"f{suffix}")
    if suffix == ".npz":
        with np.load(out, allow_pickle=False) as file:
            found = {name: file[name].tolist() for name in file.files}
    else:
        found = pyarrow.parquet.read_table(out).to_pydict()
    assert found["path"] == ["photos/cat/0.jpg", "photos/cat/1.jpg"]
    assert np.shape(found["features"]) == (2, 32)
    assert found["camera"] == ["k1", ""]
    assert found["table__evil"] == ["u", "längerer Text"], "no name that leads anywhere"
    assert (found["table_features"], found["table_file"]) == (["x", "y"], ["m", "n"])
    assert set(found) == {
        "path",
        "features",
        "camera",
        "table__evil",
        "table_features",
        "table_file",
    }


def test_a_column_that_is_called_like_a_feature_gets_another_name_in_a_csv(
    run: Run, tmp_path: Path
) -> None:
    make_folder(tmp_path / "photos", {"cat": 2})
    lines = ["path,f0,fx", "photos/cat/0.jpg,7,8", "photos/cat/1.jpg,9,10"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    data = DataConfig.parse({"name": "images", "path": str(tmp_path / "t.csv"), "subset": "all"})
    with embed(run.folder, data, tmp_path / "f.csv").open(newline="") as table:
        header = next(csv.reader(table))
    assert header[:5] == ["path", "table_f0", "fx", "f0", "f1"]
    assert len(set(header)) == len(header)


def test_a_column_that_a_npz_cannot_hold_is_refused_before_any_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "photos", {"cat": 2})
    (tmp_path / "t.csv").write_text("path,notes\nphotos/cat/0.jpg,0123456789\nphotos/cat/1.jpg,\n")
    data = DataConfig.parse({"name": "images", "path": str(tmp_path / "t.csv"), "subset": "all"})
    monkeypatch.setattr(embed_module, "LARGEST_COLUMN", 40)
    with pytest.raises(
        ConfigError, match=r"column notes has a text of 10 characters.* Write a \.parquet"
    ):
        embed(run.folder, data, tmp_path / "f.npz")
    assert embed(run.folder, data, tmp_path / "f.parquet").is_file()


def test_a_csv_holds_the_same_numbers_to_the_bit(run: Run, tmp_path: Path) -> None:
    with np.load(embed(run.folder, DIGITS, tmp_path / "f.npz")) as file:
        features, labels, names = file["features"], file["label"], file["class_names"]
    out = embed(run.folder, DIGITS, tmp_path / "f.csv")
    with out.open(newline="") as table:
        rows = list(csv.DictReader(table))
    columns = [f"f{number}" for number in range(features.shape[1])]
    assert list(rows[0]) == ["path", "label", "class", *columns]
    read = np.array([[row[name] for name in columns] for row in rows], dtype=np.float32)
    assert (read == features).all()
    assert [row["path"] for row in rows] == [str(i) for i in range(len(features))]
    assert [int(row["label"]) for row in rows] == labels.tolist()
    assert [row["class"] for row in rows] == names[labels].tolist()


def test_a_name_that_a_spreadsheet_would_run_is_text_in_a_csv(run: Run, tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", {"=cmd()": 3, "ordinary": 3})
    data = DataConfig(name="images", path=str(tmp_path / "photos"), subset="all", labels="folders")
    with embed(run.folder, data, tmp_path / "f.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert {row["class"] for row in rows} == {"'=cmd()", "ordinary"}
    assert all(not row["path"].startswith("=") for row in rows)
