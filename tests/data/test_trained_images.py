"""Images that have moved, or have others beside them, since a run was trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from killing import SignalAt
from sdclr import PretrainConfig, Run, embed, evaluate, pretrain, resume
from sdclr.errors import ConfigError, DataError, MissingInputError, NoLabelsError, Preempted
from sdclr.jobs.examine import examine


def write_photos(folder: Path, numbers: range) -> None:
    folder.mkdir(exist_ok=True)
    for n in numbers:
        rng = np.random.default_rng(n)
        level = 60 if n % 2 else 180
        Image.fromarray(rng.integers(level - 40, level + 40, (18, 20, 3), dtype=np.uint8)).save(
            folder / f"{n:02d}.png"
        )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    write_photos(tmp_path / "photos", range(20))
    settings = {
        "data": {"name": "images", "path": str(tmp_path / "photos"), "subset": "all"},
        "views": {"size": 16},
        "backbone": {"name": "resnet10", "width": 2},
        "method": {"name": "simclr"},
        "epochs": 1,
        "batch_size": 10,
    }
    rows = [f"{n:02d}.png,{'ab'[n % 2]}\n" for n in range(20)]
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(rows))
    return pretrain(PretrainConfig.parse(settings), tmp_path / "run")


def own_images(run: Run, **settings: object) -> PretrainConfig:
    return PretrainConfig.from_yaml(run.config_path).with_values(
        {f"data.{k}": v for k, v in settings.items()}
    )


@pytest.mark.journeys
def test_photos_that_came_later_change_no_evaluation_and_no_examination(
    run: Run, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.csv"
    before = evaluate(run, labels=labels, probes=["knn"]).probes["knn"].per_class_accuracy
    measured = examine(run)["trained"]
    write_photos(tmp_path / "photos", range(20, 23))
    with pytest.warns(
        UserWarning, match=r"3 images came after .*run was trained .*20\.png.*--weights"
    ):
        content = evaluate(run, labels=labels, probes=["knn"])
    assert content.probes["knn"].per_class_accuracy == before
    assert content.labels.num_images == 20
    with pytest.warns(UserWarning, match="3 images came after"):
        assert examine(run)["trained"] == measured


@pytest.mark.journeys
def test_labels_that_were_added_to_the_table_of_a_run_without_any_are_evaluated(
    tmp_path: Path, run: Run
) -> None:
    table = tmp_path / "photos" / "table.csv"
    rows = [f"{n:02d}.png,{'ab'[n % 2] if n else ''}\n" for n in range(20)]
    table.write_text("path,label\n" + "".join(rows))
    settings = PretrainConfig.from_yaml(run.config_path).with_values({"data.path": str(table)})
    with pytest.warns(UserWarning, match="1 of 20 rows"):
        other = pretrain(settings, tmp_path / "other")
    with pytest.warns(UserWarning, match="1 of 20 rows"), pytest.raises(NoLabelsError):
        evaluate(other, probes=["knn"])
    with pytest.warns(UserWarning, match="1 of 20 rows"):
        some = evaluate(other, labels=table, probes=["knn"])
    assert some.labels.num_labelled == 19
    shutil.copy(tmp_path / "labels.csv", table)
    found = evaluate(other, probes=["knn"])
    assert found.labels.source == "table.csv"
    given = evaluate(other, labels=tmp_path / "photos" / "table.csv", probes=["knn"])
    assert found.probes["knn"].per_class_accuracy == given.probes["knn"].per_class_accuracy
    assert examine(other)["trained"] == examine(run)["trained"]
    write_photos(tmp_path / "photos", range(20, 22))
    table.write_text(table.read_text() + "20.png,c\n21.png,c\n")
    with pytest.warns(UserWarning, match="2 images came after"):
        again = evaluate(other, probes=["knn"])
    assert again.probes["knn"].per_class_accuracy == given.probes["knn"].per_class_accuracy


@pytest.mark.journeys
def test_labels_that_come_while_a_run_trains_are_not_its_and_those_it_began_with_are_needed(
    tmp_path: Path, run: Run
) -> None:
    table = tmp_path / "photos" / "table.csv"
    names = [f"{n:02d}.png" for n in range(20)]
    table.write_text("path,label\n" + "".join(f"{name},\n" for name in names))
    settings = PretrainConfig.from_yaml(run.config_path).with_values(
        {"data.path": str(table), "epochs": 2}
    )
    with pytest.raises(Preempted):
        # after three passes over the 20 images
        pretrain(settings, tmp_path / "unlabelled", progress=SignalAt(60 + 1))
    shutil.copy(tmp_path / "labels.csv", table)
    assert resume(tmp_path / "unlabelled").metrics()[-1]["epoch"] == 2
    assert evaluate(tmp_path / "unlabelled", probes=["knn"]).labels.num_labelled == 20

    labelled = pretrain(settings, tmp_path / "labelled")
    table.write_text(table.read_text().replace("07.png,b", "07.png,"))
    with pytest.raises(DataError, match=r"table\.csv, line 9: no label"):
        evaluate(labelled, probes=["knn"])
    with pytest.raises(DataError, match=r"table\.csv, line 9: no label"):
        embed(labelled.folder, settings.data, tmp_path / "x.npz", as_trained=True)


@pytest.mark.journeys
def test_labels_that_were_added_to_arrays_are_evaluated(tmp_path: Path, run: Run) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 18, 20, 3), dtype=np.uint8)
    np.savez(tmp_path / "photos.npz", train_images=pixels)
    settings = PretrainConfig.from_yaml(run.config_path).with_values(
        {"data.name": "arrays", "data.path": str(tmp_path / "photos.npz")}
    )
    other = pretrain(settings, tmp_path / "other")
    with pytest.raises(NoLabelsError, match="or add train_labels"):
        evaluate(other, probes=["knn"])
    np.savez(tmp_path / "photos.npz", train_images=pixels, train_labels=np.arange(20) % 2)
    assert evaluate(other, probes=["knn"]).labels.num_labelled == 20
    np.savez(tmp_path / "photos.npz", train_images=255 - pixels, train_labels=np.arange(20) % 2)
    with pytest.raises(ConfigError, match="was trained on other data"):
        evaluate(other, probes=["knn"])


def test_photos_that_are_gone_are_still_an_error_of_an_evaluation(run: Run, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", range(20, 23))
    (tmp_path / "photos" / "03.png").unlink()
    with pytest.raises(ConfigError, match="3 new, 1 missing"):
        evaluate(run, labels=tmp_path / "labels.csv")


def test_the_features_of_a_runs_own_images_come_with_a_warning_where_they_are_others(
    run: Run, tmp_path: Path
) -> None:
    data = own_images(run).data
    embed(run.folder, data, tmp_path / "same.npz", as_trained=True)
    write_photos(tmp_path / "photos", range(20, 21))
    (tmp_path / "photos" / "03.png").unlink()
    shutil.copyfile(tmp_path / "photos" / "05.png", tmp_path / "photos" / "04.png")
    words = r"1 new \(20\.png\); 1 missing \(03\.png\); 1 of other content \(04\.png\)"
    with pytest.warns(UserWarning, match=words):
        embed(run.folder, data, tmp_path / "others.npz", as_trained=True)
    embed(run.folder, data, tmp_path / "asked.npz")  # they were named: no run is compared with


def test_photos_that_have_moved_are_asked_for_by_the_option_that_takes_them(
    run: Run, tmp_path: Path
) -> None:
    shutil.move(tmp_path / "photos", tmp_path / "moved")
    for job in (lambda: evaluate(run, labels=tmp_path / "labels.csv"), lambda: examine(run)):
        with pytest.raises(
            MissingInputError,
            match=r"run are not where they were: .*add --data PATH to the command",
        ):
            job()
    with pytest.raises(MissingInputError, match=r"add data\.path=PATH to the command"):
        embed(run.folder, own_images(run).data, tmp_path / "f.npz", as_trained=True)
    embed(
        run.folder,
        own_images(run, path=str(tmp_path / "moved")).data,
        tmp_path / "f.npz",
        as_trained=True,
    )
    evaluate(run, labels=tmp_path / "labels.csv", data_path=str(tmp_path / "moved"), probes=["knn"])
