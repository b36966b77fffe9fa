"""Predictions: those of the classifier, one row an image, the same file after a kill; nothing is left out unsaid."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from scipy.stats import entropy as entropy_of

from image_folder_stand_in import make_folder
from sdclr import Run, finetune, load_classifier, predict, pretrain, recipe
from sdclr.data import DataConfig
from sdclr.errors import ConfigError, DataError, MissingInputError, RunFolderError
from sdclr.jobs.finetune import Finetuned
from sdclr.storage import row_parts
from stop_after import StopAfter


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {"epochs": 1, "views.size": 8, "backbone.width": 4, "batch_size": 100}
    return pretrain(
        recipe("digits_sdclr").with_values(settings), tmp_path_factory.mktemp("runs") / "x"
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    make_folder(root, {"cat": 12, "dog": 8, "yak": 5})
    return root


@pytest.fixture(scope="module")
def model(run: Run, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Finetuned:
    """A model of three classes, with a temperature of its own."""
    out = tmp_path_factory.mktemp("models") / "m"
    data = images_in(photos, labels="folders")
    return finetune(run, data, out, epochs=3, validation_share=0.4)


def images_in(folder: Path, **values: Any) -> DataConfig:
    settings = {"name": "images", "path": str(folder), "subset": "all"}
    return DataConfig.parse(settings | values)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_row_says_what_the_classifier_does(
    model: Finetuned, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    found = predict(
        model, images_in(photos), out, top=2, probabilities=True, entropy=True, device="cpu"
    )
    assert (found.num_images, found.num_unreadable, found.num_right) == (25, 0, None)
    rows, classifier = rows_of(out), load_classifier(model)
    assert list(rows[0]) == [
        *("path", "label", "confidence", "calibrated", "label_2", "confidence_2", "entropy"),
        *("p_cat", "p_dog", "p_yak"),
    ]
    for row in rows:
        with Image.open(photos / row["path"]) as image, torch.no_grad():
            logits = classifier(classifier.backbone.preprocess(image)[None])
        shares = (logits.double() / (classifier.temperature or 1.0)).softmax(dim=1)[0].numpy()
        order = np.argsort(-shares)
        assert [row["label"], row["label_2"]] == [classifier.class_names[c] for c in order[:2]]
        assert float(row["confidence"]) == pytest.approx(shares[order[0]], rel=1e-4)
        assert float(row["entropy"]) == pytest.approx(entropy_of(shares), rel=1e-4)
        for name, share in zip(classifier.class_names, shares, strict=True):
            assert float(row[f"p_{name}"]) == pytest.approx(share, rel=1e-4)
        assert row["calibrated"] == ("true" if classifier.temperature else "false")
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"], "nothing is left beside it"


def test_parquet_says_the_same(model: Finetuned, photos: Path, tmp_path: Path) -> None:
    predict(model, images_in(photos), tmp_path / "p.csv")
    found = predict(model, images_in(photos), tmp_path / "p.parquet")
    table = pyarrow.parquet.read_table(found)
    assert table.column_names == ["path", "label", "confidence", "calibrated"]
    rows = rows_of(tmp_path / "p.csv")
    assert table["label"].to_pylist() == [row["label"] for row in rows]
    confidences = [float(row["confidence"]) for row in rows]
    assert table["confidence"].to_pylist() == pytest.approx(confidences, rel=1e-5)
    assert all(isinstance(one, bool) for one in table["calibrated"].to_pylist())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_killed_call_goes_on_and_ends_in_the_same_file(
    suffix: str,
    model: Finetuned,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(row_parts, "ROWS_PER_PART", 4)
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"p{suffix}"
    predict(model, images_in(photos), whole)
    for killed_after in (5, 9, 0):
        show = StopAfter(killed_after)
        with pytest.raises(KeyboardInterrupt):
            predict(model, images_in(photos), out, progress=show)
        assert not out.exists()
    assert show.begun_at == [12], "4 images, then 8 more, were finished and are not done again"
    predict(model, images_in(photos), out)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(os.listdir(tmp_path)) == sorted([whole.name, out.name])


def test_a_killed_call_goes_on_when_an_image_has_come(
    model: Finetuned, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_parts, "ROWS_PER_PART", 8)
    more = shutil.copytree(photos, tmp_path / "photos")
    with pytest.raises(KeyboardInterrupt):
        predict(model, images_in(more), tmp_path / "p.csv", progress=StopAfter(20))
    shutil.copy(next((more / "dog").iterdir()), more / "0_new.png")
    last = StopAfter(10_000)
    predict(model, images_in(more), tmp_path / "p.csv", progress=last)
    assert last.begun_at == [16]
    whole = predict(model, images_in(more), tmp_path / "whole.csv")
    found = rows_of(tmp_path / "p.csv")
    assert [(row["path"], row["label"]) for row in found] == [
        (row["path"], row["label"]) for row in rows_of(whole.path)
    ]
    assert found[0]["path"] == "0_new.png"


def test_rows_of_another_model_are_not_gone_on_with(
    model: Finetuned, run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_parts, "ROWS_PER_PART", 4)
    other = finetune(run, images_in(photos, labels="folders"), tmp_path / "other", epochs=1)
    with pytest.raises(KeyboardInterrupt):
        predict(other, images_in(photos), tmp_path / "p.csv", progress=StopAfter(9))
    with pytest.warns(UserWarning, match="predictions of other images or of another backbone"):
        predict(model, images_in(photos), tmp_path / "p.csv")
    predict(model, images_in(photos), tmp_path / "whole.csv")
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_unreadable_images_keep_their_rows_with_the_cause(
    model: Finetuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_parts, "ROWS_PER_PART", 2)
    root = tmp_path / "photos"
    make_folder(root, {"a": 3, "c": 2})
    for name in ("0.jpg", "a/1a.jpg", "b/x.jpg", "d.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"\xff\xd8\xff\xe0 no more")
    data = images_in(root)
    with pytest.raises(DataError, match="4 of 9 images"):
        predict(model, data, tmp_path / "p.csv")
    skipping = data.with_values({"on_error": "skip"})  # any number: each keeps its row
    with pytest.warns(UserWarning, match="4 of 9 images cannot be decoded and get no label"):
        found = predict(model, skipping, tmp_path / "p.csv")
    rows = rows_of(tmp_path / "p.csv")
    bad = ["0.jpg", "a/1a.jpg", "b/x.jpg", "d.jpg"]
    assert [row["path"] for row in rows if not row["label"]] == bad
    assert all(bool(row["error"]) == (not row["label"]) for row in rows)
    assert sorted(row["path"] for row in rows) == [row["path"] for row in rows]
    assert (found.num_images, found.num_unreadable) == (9, 4)
    assert "4 of them unreadable" in found.summary()
    good = predict(model, images_in(root / "c"), tmp_path / "c.csv")
    alone = {row["path"]: row["label"] for row in rows_of(good.path)}
    assert {f"c/{path}": label for path, label in alone.items()} == {
        row["path"]: row["label"] for row in rows if row["path"].startswith("c/")
    }


def test_known_labels_are_beside_the_predicted_ones_and_counted(
    model: Finetuned, photos: Path, tmp_path: Path
) -> None:
    found = predict(model, images_in(photos, labels="folders"), tmp_path / "p.csv")
    rows = rows_of(tmp_path / "p.csv")
    assert [row["known_label"] for row in rows] == [row["path"].split("/")[0] for row in rows]
    assert found.num_right == sum(row["known_label"] == row["label"] for row in rows)
    assert "right by their labels" in found.summary()


def test_labels_that_the_model_does_not_know_are_named_and_not_counted(
    model: Finetuned, photos: Path, tmp_path: Path
) -> None:
    paths = sorted(path.relative_to(photos) for path in photos.rglob("*.jpg"))
    lines = [f"{path},{path.parts[0] if i else 'zebra'}" for i, path in enumerate(paths)]
    (tmp_path / "some.csv").write_text("\n".join(["path,label", *lines]))
    data = images_in(tmp_path / "some.csv", root=str(photos))
    with pytest.warns(UserWarning, match=r"does not know the labels of 1 image of \d+ \(zebra\)"):
        found = predict(model, data, tmp_path / "p.csv")
    known = [row for row in rows_of(found.path) if row["known_label"] != "zebra"]
    assert found.num_known == len(known) == len(paths) - 1
    assert found.num_right == sum(row["known_label"] == row["label"] for row in known)
    assert f"right by the {len(known)} known labels" in found.summary()


def test_a_model_that_is_not_calibrated_says_so_in_each_row(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    data = images_in(photos, labels="folders")
    with pytest.warns(UserWarning, match="no validation images"):
        model = finetune(run, data, tmp_path / "m", epochs=1, validation_share=0.0)
    found = predict(model, images_in(photos), tmp_path / "p.csv")
    assert {row["calibrated"] for row in rows_of(found.path)} == {"false"}
    assert "not calibrated" in found.summary()


def test_what_cannot_be_done_is_refused_before_any_work(
    model: Finetuned, run: Run, photos: Path, tmp_path: Path
) -> None:
    data = images_in(photos)
    with pytest.raises(MissingInputError, match="not a finished model"):
        predict(run, data, tmp_path / "p.csv")
    with pytest.raises(ConfigError, match=r"named \*\.csv or \*\.parquet"):
        predict(model, data, tmp_path / "p.npz")
    with pytest.raises(ConfigError, match=r"--top must be in 1 \.\. 3"):
        predict(model, data, tmp_path / "p.csv", top=4)
    (tmp_path / "p.csv").write_text("precious")
    with pytest.raises(ConfigError, match="--overwrite"):
        predict(model, data, tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == "precious"
    (tmp_path / "q.csv.partial").mkdir()
    (tmp_path / "q.csv.partial" / "a.txt").write_text("precious")
    with pytest.raises(RunFolderError, match="not made by sdclr predict"):
        predict(model, data, tmp_path / "q.csv")
    with pytest.warns(UserWarning, match="exif_rotation=False"):
        predict(model, data.with_values({"exif_rotation": False}), tmp_path / "r.csv")


def test_a_name_that_a_spreadsheet_would_run_is_text(model: Finetuned, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    make_folder(root, {"=a": 1})
    predict(model, images_in(root), tmp_path / "p.csv")
    assert rows_of(tmp_path / "p.csv")[0]["path"] == "'=a/0.jpg"


def test_the_test_images_of_a_npz_or_of_folders_are_a_part(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images = {
        f"{part}_images": rng.integers(0, 255, (n, 8, 8), dtype=np.uint8) for part, n in PARTS
    }
    labels = {f"{part}_labels": np.arange(n) % 2 for part, n in PARTS}
    np.savez(tmp_path / "x.npz", **images, **labels)
    data = DataConfig(name="arrays", path=str(tmp_path / "x.npz"), subset="all")
    model = finetune(run, data, tmp_path / "m", epochs=1)
    for part, n in PARTS:
        found = predict(model, data, tmp_path / f"{part}.csv", part=part)
        assert (found.num_images, found.num_known) == (n, n)
    alone = DataConfig(name="arrays", path=str(tmp_path / "t.npz"), subset="all")
    np.savez(tmp_path / "t.npz", images=images["test_images"])
    again = predict(model, alone, tmp_path / "again.csv")
    assert [row["label"] for row in rows_of(tmp_path / "test.csv")] == [
        row["label"] for row in rows_of(again.path)
    ]
    with pytest.raises(ConfigError, match=r"t\.npz has no test images to predict"):
        predict(model, alone, tmp_path / "none.csv", part="test")


PARTS: tuple[tuple[Literal["train", "test"], int], ...] = (("train", 40), ("test", 12))
