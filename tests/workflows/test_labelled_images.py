"""Labels as people bring them: where the paths of a table begin, folders of classes, and the verbs that take them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from image_folder_stand_in import make_folder
from sdclr import Run, cli, pretrain, recipe
from sdclr.data import DataConfig, build_data
from sdclr.data.trained_images import images_of
from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.workflows.labelled_images import labelled_images, labels_of_run
from shard_stand_in import shards_of

pytestmark = pytest.mark.journeys


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    make_folder(root, {"cat": 10, "dog": 8})
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained on the photographs, turned images left as they are."""
    data = {"name": "images", "path": str(photos), "subset": "all", "exif_rotation": False}
    settings = {"epochs": 1, "views.size": 8, "backbone.width": 4, "batch_size": 9}
    config = recipe("digits_simclr").with_values({"data": data, **settings})
    return pretrain(config, tmp_path_factory.mktemp("runs") / "x")


def table(folder: Path, paths: list[str], name: str = "labels.csv") -> Path:
    folder.mkdir(exist_ok=True)
    rows = "".join(f"{path},{Path(path).parent.name}\n" for path in paths)
    (folder / name).write_text(f"path,label\n{rows}")
    return folder / name


PATHS = ["cat/0.jpg", "cat/1.jpg", "dog/0.jpg"]


def test_paths_begin_beside_the_table_else_where_the_run_was_trained_else_where_it_is_said(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    beside = table(photos, PATHS, "beside.csv")
    assert labelled_images(run.folder, beside, None, {}).root is None
    elsewhere = table(tmp_path / "lists", PATHS)
    found = labelled_images(run.folder, elsewhere, None, {})
    assert found.root == str(photos)
    assert build_data(found).class_names == ["cat", "dog"]
    absolute = table(tmp_path / "absolute", [str(photos / path) for path in PATHS])
    assert len(build_data(labelled_images(run.folder, absolute, None, {})).train) == 3
    said = labelled_images("timm:resnet18", elsewhere, photos, {})
    assert len(build_data(said).train) == 3
    with pytest.raises(MissingInputError, match=r"cat/0\.jpg is not in"):
        build_data(labelled_images("timm:resnet18", elsewhere, None, {}))


def test_images_are_read_as_the_run_has_read_them(run: Run, photos: Path) -> None:
    found = labelled_images(run.folder, photos, None, {})
    assert (found.labels, found.exif_rotation) == ("folders", False)
    assert labelled_images(run.folder, photos, None, {"data.exif_rotation": True}).exif_rotation
    own = labels_of_run(run, {"data.labels": "folders"})
    assert build_data(own).class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    "place", ["shards", "shards/train-{000..002}.tar", "shards/*.tar", "shards/train-001.tar"]
)
def test_shards_on_a_disk_bring_their_own_labels_however_they_are_named(
    run: Run, photos: Path, tmp_path: Path, place: str
) -> None:
    paths = [f"{kind}/{i}.jpg" for i in range(6) for kind in ("cat", "dog")]
    shards_of(photos, paths, tmp_path / "shards", 3, classes=["cat", "dog"])
    found = build_data(labelled_images(run.folder, tmp_path / place, None, {}))
    num = 4 if place.endswith("001.tar") else 12
    assert found.train.labels is not None
    assert sorted(found.train.labels.tolist()) == [0] * (num // 2) + [1] * (num // 2)


def test_a_shard_of_a_range_that_is_missing_is_named(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    shards_of(photos, PATHS, tmp_path / "shards", 3, classes=["cat", "dog"])
    (tmp_path / "shards" / "train-001.tar").unlink()
    place = tmp_path / "shards" / "train-{000..002}.tar"
    with pytest.raises(MissingInputError, match=r"train-001\.tar"):
        build_data(labelled_images(run.folder, place, None, {}))
    data = DataConfig(name="images", path=str(place), subset="all")
    with pytest.raises(MissingInputError, match=r"train-001\.tar[\s\S]*add --data PLACE"):
        images_of(run, data)


def test_what_are_no_labels_is_refused_by_name(run: Run, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no file or folder of labels .*nope\.csv"):
        labelled_images(run.folder, tmp_path / "nope.csv", None, {})
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="save it as CSV"):
        labelled_images(run.folder, tmp_path / "a.xlsx", None, {})
    with pytest.raises(ConfigError, match="--images is where the paths of a table"):
        labelled_images(run.folder, photos, photos, {})
    with pytest.raises(ConfigError, match="only settings of the images"):
        labelled_images(run.folder, photos, None, {"epochs": 3})


def test_the_verbs_make_a_model_and_use_it(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = ["finetune", str(run.folder), "--labels", str(photos), "--out", "model"]
    made = CliRunner().invoke(cli.app, [*model, "--epochs", "2", "--device", "cpu"])
    assert made.exit_code == 0, made.output
    assert "validation: " in made.output
    assert "next: sdclr predict model IMAGES" in made.output
    words = ["predict", "model", str(photos), "--top", "2", "--device", "cpu"]
    used = CliRunner().invoke(cli.app, words)
    assert used.exit_code == 0, used.output
    with open("predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert {rows[0]["label"], rows[0]["label_2"]} == {"cat", "dog"}
    embedded = CliRunner().invoke(cli.app, ["embed", "model", str(photos), "--out", "f.npz"])
    assert embedded.exit_code == 0, embedded.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["finetune", "RUN", "x.csv", "--out", "m"], "labels are named with --labels"),
        (["finetune", "RUN", "epochs=5", "--out", "m"], "are options, such as --epochs 20"),
        (["finetune", "RUN", "--images", "x", "--out", "m"], "add --labels TABLE"),
        (["finetune", "nowhere", "--labels", "x.csv", "--out", "m"], "no run folder or file"),
        (["finetune", "RUN", "--out", "m"], "has no labels to learn from"),
        (["predict", "nowhere", "x"], "no model folder nowhere"),
        (["predict", "RUN", "a", "b"], "give one folder, list or file of images, got a, b"),
        (["predict", "RUN", "a"], "not a finished model"),
    ],
)
def test_what_the_verbs_cannot_do_is_one_sentence(
    words: list[str], said: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(run.folder) if word == "RUN" else word for word in words]
    result = CliRunner().invoke(cli.app, given)
    assert said in str(result.exception)
    assert list(tmp_path.iterdir()) == []
