"""Labels that come after the training: for some of the images, in a table, in folders, with a test set or without."""

from __future__ import annotations

import json
import shutil
import zipfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdclr import PretrainConfig, Run, build_report, compare, embed, evaluate, pretrain
from sdclr.data import DataConfig
from sdclr.errors import ConfigError, DataError
from sdclr.jobs.evaluate import evaluation_settings
from sdclr.presentation.html import render_html
from sdclr.run.next_step import next_command

pytestmark = [
    pytest.mark.usefixtures("light_figures"),
    # the tests share a run, and each has labels of its own
    pytest.mark.filterwarnings("ignore:.*not comparable with this one"),
]

LEVELS = {"dark": 50, "bright": 200}


def write_images(folder: Path, number: int, level: int, seed: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = np.random.default_rng([level, seed]), []
    for n in range(number):
        paths.append(folder / f"{n:02d}.png")
        Image.fromarray(rng.integers(level - 40, level + 40, (18, 20, 3), dtype=np.uint8)).save(
            paths[-1]
        )
    return paths


def tiny(data: dict[str, object]) -> PretrainConfig:
    return PretrainConfig.parse(
        {
            "data": {"name": "images", "subset": "all", **data},
            "views": {"size": 16},
            "backbone": {"name": "resnet10", "width": 2},
            "method": {"name": "simclr"},
            "epochs": 1,
            "batch_size": 18,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ with 24 dark and 12 bright ones, and a run on them that knew no labels."""
    root = tmp_path_factory.mktemp("later")
    write_images(root / "photos" / "dark", 24, LEVELS["dark"], 0)
    write_images(root / "photos" / "bright", 12, LEVELS["bright"], 0)
    pretrain(tiny({"path": str(root / "photos")}), root / "run")
    for part, level in LEVELS.items():
        write_images(root / "test" / part, 5, level, 1)
    return root


def write_labels(root: Path, each: int = 6, name: str = "labels.csv", more: str = "") -> Path:
    rows = [f"{part}/{n:02d}.png,{part}" for part in LEVELS for n in range(each)]
    file = root / name
    file.write_text("path,label\n" + "\n".join(rows) + f"\n{more}")
    return file


def test_a_few_labels_that_come_later_are_cross_validated(trained: Path) -> None:
    before = (trained / "run" / "config.yaml").read_bytes()
    content = evaluate(trained / "run", labels=write_labels(trained))
    assert content.class_names == ["bright", "dark"]
    assert content.train_counts == [6, 6]
    assert content.tested_on == "cross-validation"
    assert content.labels is not None
    said = content.labels.model_dump(exclude_none=True, exclude={"sha256"})
    assert said == {
        "source": "labels.csv",
        "num_labelled": 12,
        "num_images": 36,
        "num_unknown_names": 0,
    }
    for probe in ("linear", "few_shot", "knn"):
        measured = content.probes[probe]
        assert measured.num_test == [6, 6]
        assert measured.detail.startswith("cross-validated: 5 folds, accuracy")
        assert content.balancedness(probe).all == pytest.approx(
            np.mean(measured.per_class_accuracy)
        )
    assert content.probes["linear"].per_class_accuracy == [1.0, 1.0], (
        "dark and bright are told apart"
    )
    assert (trained / "run" / "config.yaml").read_bytes() == before
    assert content.to_dict() == json.loads(
        (trained / "run" / "evaluation" / "cached.json").read_text()
    )


def test_a_label_of_an_image_that_cannot_be_decoded_counts_nowhere(tmp_path: Path) -> None:
    for part, level in LEVELS.items():
        write_images(tmp_path / "photos" / part, 9, level, 0)
    (tmp_path / "photos" / "dark" / "bad.png").write_bytes(b"")
    skip = {"on_error": "skip", "max_skipped": 1}
    with pytest.warns(UserWarning, match="bad.png"):
        pretrain(tiny({"path": str(tmp_path / "photos"), **skip}), tmp_path / "run")
    labels = write_labels(tmp_path, more="dark/bad.png,dark\n")
    content = evaluate(tmp_path / "run", labels=labels, probes=["knn"])
    assert content.train_counts == content.probes["knn"].num_test == [6, 6]
    assert content.labels is not None
    assert (content.labels.num_labelled, content.labels.num_images) == (12, 18)


def test_names_as_windows_writes_them_are_found_and_another_encoding_is_said(trained: Path) -> None:
    rows = [f"{part}\\{n:02d}.png,{part}" for part in LEVELS for n in range(3)]
    file = trained / "windows.csv"
    file.write_text("path,label\n" + "\n".join(rows))
    with pytest.warns(UserWarning, match=r"6 names of windows\.csv .* read as /"):
        content = evaluate(trained / "run", labels=file, probes=["knn"])
    assert content.train_counts == [3, 3]
    (trained / "above.csv").write_text("path,label\n" + "\n".join(f"photos\\{row}" for row in rows))
    with pytest.warns(UserWarning, match="read as /"):
        above = evaluate(
            trained / "run",
            labels=trained / "above.csv",
            settings={"data.root": str(trained)},
            probes=["knn"],
        )
    assert above.train_counts == [3, 3]
    rows = [*(row.replace("\\", "/") for row in rows), "d\u00fcster/1.png,dark"]
    file.write_bytes(("path,label\n" + "\n".join(rows)).encode("cp1252"))
    with pytest.warns(UserWarning, match=r"1 of 7 labelled names .* windows\.csv is not UTF-8"):
        evaluate(trained / "run", labels=file, probes=["knn"])


def test_groups_of_the_table_are_kept_together_and_said(trained: Path) -> None:
    rows = [f"{part}/{n:02d}.png,{part},{part}{n // 2}" for part in LEVELS for n in range(6)]
    table = trained / "grouped.csv"
    table.write_text("path,label,burst\n" + "\n".join(rows))
    found = evaluate(
        trained / "run", labels=table, settings={"data.group_by": "burst"}, probes=["knn"]
    )
    assert found.kept_together == "burst"
    assert "3 folds" in found.probe("knn").detail, "as many as a class has bursts"
    assert "No group of images (burst) was both" in build_report([trained / "run"]).description
    alone = evaluate(trained / "run", labels=table, probes=["linear"])
    assert list(alone.probes) == ["linear"], "what was measured otherwise is not kept beside it"
    with pytest.raises(ConfigError, match="there are: burst"):
        evaluate(trained / "run", labels=table, settings={"data.group_by": "brust"})


def test_the_report_says_whose_labels_they_are_and_how_they_were_tested(trained: Path) -> None:
    evaluate(trained / "run", labels=write_labels(trained))
    report = build_report([trained / "run"])
    assert (
        "Labels: labels.csv, 12 of 36 images. Cross-validated: every labelled image"
        in report.description
    )
    page = render_html(report)
    assert "Labelled images of each class" in page
    assert "labels of labels.csv" in page


def test_a_test_set_that_comes_later_is_used(trained: Path) -> None:
    settings = {"data.test_path": str(trained / "test"), "data.validation_per_class": 1}
    content = evaluate(trained / "run", labels=write_labels(trained), settings=settings)
    assert content.tested_on == "test set"
    assert content.train_counts == [5, 5], "one of each class is held out"
    assert content.probes["knn"].num_test == [5, 5]
    assert "validation accuracy" in content.probes["linear"].detail
    build_report([trained / "run"])


def test_the_sub_folders_can_become_the_classes_after_the_training(trained: Path) -> None:
    content = evaluate(trained / "run", settings={"data.labels": "folders"}, probes=["knn"])
    assert content.train_counts == [12, 24]
    assert content.labels.source == "data.labels=folders"
    assert Run(trained / "run").settings()["data"]["labels"] == "none"
    both = {"data.labels": "folders", "data.test_path": str(trained / "test")}
    assert evaluate(trained / "run", settings=both, probes=["knn"]).probes["knn"].num_test == [5, 5]


def test_another_set_of_labels_replaces_what_was_measured_with_the_first(trained: Path) -> None:
    evaluate(trained / "run", labels=write_labels(trained, 6))
    said = r"linear, few_shot in \S+ came from another evaluation \(other labels, .* are replaced"
    with pytest.warns(UserWarning, match=said):
        content = evaluate(trained / "run", labels=write_labels(trained, 4), probes=["knn"])
    assert set(content.probes) == {"knn"}
    again = evaluate(trained / "run", labels=write_labels(trained, 4), probes=["linear"])
    assert set(again.probes) == {"knn", "linear"}, "the same labels: kept"


def test_rows_without_a_label_and_absolute_paths_are_taken(trained: Path) -> None:
    photos = trained / "photos"
    rows = [
        f"{photos}/{part}/{n:02d}.png;{part if n % 2 else ''}" for part in LEVELS for n in range(8)
    ]
    file = trained / "company.csv"
    file.write_text("Filename;Class\n" + "\n".join(rows))
    content = evaluate(trained / "run", labels=file, probes=["knn"])
    assert content.train_counts == [4, 4]


def test_names_of_no_image_are_left_out_with_a_warning(trained: Path) -> None:
    file = write_labels(trained, more="elsewhere/x.png,dark\n")
    with pytest.warns(
        UserWarning,
        match=r"1 of 13 labelled names are not images of this run .*line 14: elsewhere/x\.png",
    ):
        content = evaluate(trained / "run", labels=file, probes=["knn"])
    assert content.labels.num_unknown_names == 1


def test_a_table_that_names_no_image_at_all_says_what_the_images_are_called(trained: Path) -> None:
    file = trained / "other.csv"
    file.write_text("path,label\nIMG_1.png,dark\nIMG_2.png,bright\n")
    with pytest.raises(DataError, match=r"names no image of this run .*names like bright/00\.png"):
        evaluate(trained / "run", labels=file)


def test_a_class_with_one_labelled_image_is_left_out_with_a_warning_or_named(trained: Path) -> None:
    file = write_labels(trained, 5, more="dark/20.png,odd\n")
    with pytest.raises(DataError, match="fewer than 2 usable labelled images: odd"):
        evaluate(trained / "run", labels=file, untested="raise")
    with pytest.warns(UserWarning, match="1 of 3 classes are left out"):
        content = evaluate(trained / "run", labels=file)
    assert content.probes["linear"].per_class_accuracy[2] is None
    assert content.probes["linear"].num_test == [5, 5, 0]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            "path,label\ndark/00.png,dark\ndark/01.png,dark\n",
            "all its labelled training images are of one class",
        ),
        ("path,quality\ndark/00.png,3\n", "has no labels"),
        ("path,label\ndark/00.png,\n", "no row has a label"),
        ("path,label\ndark/00.png,a\nbright/00.png,b\n", "no class can be measured"),
    ],
)
def test_labels_that_are_too_few_are_one_clear_error(trained: Path, rows: str, words: str) -> None:
    file = trained / "few.csv"
    file.write_text(rows)
    with pytest.raises(DataError, match=words):
        evaluate(trained / "run", labels=file)


def test_without_labels_the_error_says_where_they_can_come_from(trained: Path) -> None:
    with pytest.raises(DataError, match=r"--labels FILE, a table with the columns path and label"):
        evaluate(trained / "run")


def test_what_was_decided_in_training_is_no_setting_of_an_evaluation(trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.exclude is decided when a run is trained"):
        evaluate(trained / "run", settings={"data.exclude": "x"})
    with pytest.raises(ConfigError, match=r"epochs is decided when a run is trained"):
        evaluation_settings(["epochs=3"])


def test_the_papers_protocol_asks_for_a_test_set(trained: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"protocol sdclr needs a labelled test set: give data\.test_path"
    ):
        evaluate(trained / "run", labels=write_labels(trained), protocol="sdclr")


def test_an_image_to_learn_from_is_no_test_image(trained: Path) -> None:
    tests = trained / "tests.csv"
    tests.write_text("path,label\nphotos/dark/00.png,dark\nphotos/bright/11.png,bright\n")
    with pytest.raises(
        DataError, match=r"1 of 2 images of test set .* have a label to learn from as well"
    ):
        evaluate(
            trained / "run", labels=write_labels(trained), settings={"data.test_path": str(tests)}
        )


def test_images_of_the_run_without_a_label_can_be_test_images(trained: Path) -> None:
    tests = trained / "tests.csv"
    tests.write_text("path,label\nphotos/dark/10.png,dark\nphotos/bright/11.png,bright\n")
    content = evaluate(
        trained / "run", labels=write_labels(trained), settings={"data.test_path": str(tests)}
    )
    assert content.probes["knn"].num_test == [1, 1]


def test_a_test_class_that_no_label_has_is_named(trained: Path) -> None:
    write_images(trained / "more" / "purple", 3, 120, 2)
    write_images(trained / "more" / "dark", 3, 50, 2)
    with pytest.raises(DataError, match="a class that no labelled training image has: purple"):
        evaluate(
            trained / "run",
            labels=write_labels(trained),
            settings={"data.test_path": str(trained / "more")},
        )


def test_arrays_are_labelled_by_position(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = np.concatenate(
        [rng.integers(0, 90, (20, 12, 12, 3)), rng.integers(150, 255, (20, 12, 12, 3))]
    )
    np.savez(tmp_path / "d.npz", images=images.astype(np.uint8))
    config = tiny({"name": "arrays", "path": str(tmp_path / "d.npz")})
    pretrain(config.with_values({"views.size": 12, "batch_size": 20}), tmp_path / "run")
    (tmp_path / "l.csv").write_text(
        "path,label\n" + "".join(f"{n},{'ab'[n // 20]}\n" for n in range(0, 40, 4))
    )
    content = evaluate(tmp_path / "run", labels=tmp_path / "l.csv", probes=["linear"])
    assert content.train_counts == [5, 5]
    assert content.probes["linear"].per_class_accuracy == [1.0, 1.0]


def test_names_for_arrays_are_answered_with_positions(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", images=images)
    config = tiny({"name": "arrays", "path": str(tmp_path / "d.npz")})
    pretrain(config.with_values({"views.size": 12, "batch_size": 20}), tmp_path / "run")
    (tmp_path / "l.csv").write_text("path,label\ncat/0.jpg,cat\ndog/0.jpg,dog\n")
    with pytest.raises(
        DataError, match=r"names like 0\. .* write their positions, from 0, in the column path\.$"
    ):
        evaluate(tmp_path / "run", labels=tmp_path / "l.csv")


@pytest.mark.parametrize("name", ["d.npz", "a.jpg", "b.safetensors", "labels.csv", "labels.txt"])
def test_a_binary_file_is_no_table_of_labels_and_is_not_shown(
    trained: Path, tmp_path: Path, name: str
) -> None:
    np.savez(tmp_path / "any.npz", images=np.arange(99.0))
    (tmp_path / "any.npz").rename(tmp_path / name)
    if name == "b.safetensors":
        shutil.copy(trained / "run" / "backbone.safetensors", tmp_path / name)
    if name == "a.jpg":
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    with pytest.raises(DataError, match="is a binary file, not a list") as caught:
        evaluate(trained / "run", labels=tmp_path / name)
    assert "\\x" not in str(caught.value)
    (tmp_path / "l.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="is a spreadsheet: save it as CSV"):
        evaluate(trained / "run", labels=tmp_path / "l.xlsx")


def test_labels_in_the_csv_that_embed_writes_are_read_back(tmp_path: Path) -> None:
    """Its guard against spreadsheets stands before paths and classes that begin with = or -."""
    for number, level in enumerate(LEVELS.values()):
        for path in write_images(tmp_path / "photos", 9, level, 0):
            path.rename(tmp_path / "photos" / f"{'=-'[number]}{path.name}")
    run = pretrain(tiny({"path": str(tmp_path / "photos")}), tmp_path / "run")
    data = guarded_labels(tmp_path)
    out = embed(run.folder, data, tmp_path / "f.csv")
    assert out.read_text().count("\n'") == 18
    content = evaluate(run, labels=out, settings={"data.label_column": "class"}, probes=["knn"])
    assert content.class_names == ["-bright", "=dark"]
    assert content.labels is not None
    assert content.labels.num_labelled == 18


def guarded_labels(folder: Path) -> DataConfig:
    """The images of a run with labels whose names begin with - and =."""
    names = sorted(path.name for path in (folder / "photos").iterdir())
    rows = [f"{name},{'=dark' if name[0] == '=' else '-bright'}" for name in names]
    (folder / "labels.csv").write_text("path,label\n" + "\n".join(rows))
    return DataConfig(
        name="images", path=str(folder / "labels.csv"), root=str(folder / "photos"), subset="all"
    )


def test_folders_as_labels_work_where_photos_were_added_since(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "photos", tmp_path / "photos")
    run = pretrain(tiny({"path": str(tmp_path / "photos")}), tmp_path / "run")
    before = evaluate(run, settings={"data.labels": "folders"}, probes=["knn"])
    write_images(tmp_path / "photos" / "another", 3, 120, 1)
    shutil.copy(tmp_path / "photos" / "dark" / "00.png", tmp_path / "photos" / "dark" / "new.png")
    with pytest.warns(
        UserWarning, match=r"4 images came after .* and are left out \(first: another/00\.png\)"
    ):
        after = evaluate(run, settings={"data.labels": "folders"}, probes=["knn"])
    for key in ("class_names", "train_counts", "split"):
        assert getattr(after, key) == getattr(before, key)
    assert after.probe("knn").per_class_accuracy == before.probe("knn").per_class_accuracy


def test_the_report_names_labels_and_test_set_and_tells_evaluations_apart(
    trained: Path, tmp_path: Path
) -> None:
    first = shutil.copytree(trained / "run", tmp_path / "first")
    second = shutil.copytree(trained / "run", tmp_path / "second")
    settings = {"data.test_path": str(trained / "test")}
    evaluate(first, labels=write_labels(trained, 6, "six.csv"), settings=settings, probes=["knn"])
    evaluate(
        second, labels=write_labels(trained, 8, "eight.csv"), settings=settings, probes=["knn"]
    )
    report = build_report([first])
    assert report.title == "SimCLR on photos"
    assert "for 1 epoch on photos" in report.description
    assert "Labels: six.csv, 12 of 36 images. Test set: test, 10 images." in report.description
    with pytest.raises(
        ConfigError, match=r"first was evaluated with 12 labels of six\.csv, tested on test, and "
    ) as caught:
        build_report([first, second])
    assert "Evaluate both alike" in str(caught.value)
    assert "fingerprint" not in str(caught.value)
    evaluate(second, labels=write_labels(trained, 6, "six.csv"), settings=settings, probes=["knn"])
    with pytest.raises(ConfigError, match="the same thing twice"):
        build_report([first, second])


def test_images_in_a_zip_are_labelled_by_their_names_in_it(trained: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "all"), "zip", trained / "photos")
    run = pretrain(tiny({"path": str(tmp_path / "all.zip")}), tmp_path / "run")
    inside = evaluate(run, labels=write_labels(tmp_path), probes=["knn"])
    assert inside.train_counts == [6, 6]
    rows = [f"all.zip/{part}/{n:02d}.png,{part}" for part in LEVELS for n in range(5)]
    (tmp_path / "long.csv").write_text("path,label\n" + "\n".join(rows))
    assert evaluate(run, labels=tmp_path / "long.csv", probes=["knn"]).train_counts == [5, 5]


def test_boxes_are_labelled_by_a_table_of_boxes_or_by_their_names(
    trained: Path, tmp_path: Path
) -> None:
    rows = [
        f"{part}/{n:02d}.png,{x},0,9,18,{part}"
        for part in LEVELS
        for n in range(10)
        for x in (0, 9)
    ]
    head = "path,x,y,width,height,label\n"
    (tmp_path / "boxes.csv").write_text(
        "path,x,y,width,height\n" + "\n".join(row.rpartition(",")[0] for row in rows)
    )
    where = {
        "path": str(tmp_path / "boxes.csv"),
        "root": str(trained / "photos"),
        "boxes": "pixels",
    }
    run = pretrain(tiny(where), tmp_path / "run")
    (tmp_path / "labelled.csv").write_text(head + "\n".join(rows[:12] + rows[-12:]))
    content = evaluate(run, labels=tmp_path / "labelled.csv", probes=["knn"])
    assert content.train_counts == [12, 12]
    names = [f'"{part}/{n:02d}.png#0,0,9,18",{part}' for part in LEVELS for n in range(3)]
    (tmp_path / "names.csv").write_text("path,label\n" + "\n".join(names))
    assert evaluate(run, labels=tmp_path / "names.csv", probes=["knn"]).train_counts == [3, 3]


def test_the_evaluation_that_a_run_with_a_class_of_one_image_proposes_works(
    trained: Path, tmp_path: Path
) -> None:
    table = write_labels(trained, 12, "rare.csv", more="dark/20.png,odd\n")
    data = {"name": "images", "path": str(table), "root": str(trained / "photos"), "subset": "all"}
    config = PretrainConfig.from_yaml(trained / "run" / "config.yaml").with_values({"data": data})
    run = pretrain(config, tmp_path / "run")
    assert next_command(run, "done") == f"sdclr evaluate {tmp_path / 'run'} --untested leave_out"
    with pytest.warns(UserWarning, match="1 of 3 classes are left out"):
        evaluate(run, untested="leave_out", probes=["knn"])
    assert next_command(run, "done") == f"sdclr report {tmp_path / 'run'}"


@pytest.mark.parametrize("place", ["", "photos/dark"])
def test_a_table_whose_paths_begin_elsewhere_says_where_and_is_read_with_it(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    begin = trained / place
    rows = [
        f"{(trained / 'photos' / 'dark' / f'{n:02d}.png').relative_to(begin)},{'ab'[n % 2]}"
        for n in range(12)
    ]
    file = tmp_path / "labels.csv"
    file.write_text("path,label\n" + "\n".join(rows))
    monkeypatch.chdir(begin if place else tmp_path)
    with pytest.raises(
        DataError, match=f"names no image of this run .*add data.root={begin} to the command"
    ):
        evaluate(trained / "run", labels=file)
    content = evaluate(
        trained / "run", labels=file, settings={"data.root": str(begin)}, probes=["knn"]
    )
    assert content.train_counts == [6, 6]


def test_a_test_list_whose_paths_begin_elsewhere_is_read_with_data_root(
    trained: Path, tmp_path: Path
) -> None:
    tests = tmp_path / "tests.csv"
    tests.write_text("path,label\ndark/00.png,dark\nbright/00.png,bright\n")
    settings = {"data.test_path": str(tests), "data.root": str(trained / "test")}
    content = evaluate(
        trained / "run", labels=write_labels(trained), settings=settings, probes=["knn"]
    )
    assert content.train_counts == [6, 6], "names of the run's own images need no root"
    assert content.probes["knn"].num_test == [1, 1]


def test_absolute_paths_of_another_machine_are_read_with_their_common_folder(
    trained: Path, tmp_path: Path
) -> None:
    file = tmp_path / "labels.csv"
    rows = [f"/elsewhere/photos/{part}/{n:02d}.png,{part}" for part in LEVELS for n in range(4)]
    file.write_text("path,label\n" + "\n".join(rows))
    with pytest.raises(DataError, match=r"data\.root=/elsewhere/photos"):
        evaluate(trained / "run", labels=file)
    content = evaluate(
        trained / "run", labels=file, settings={"data.root": "/elsewhere/photos"}, probes=["knn"]
    )
    assert content.train_counts == [4, 4]


def test_no_advice_about_labels_leads_back_to_itself(trained: Path, tmp_path: Path) -> None:
    for settings in ({}, {"data.test_path": str(trained / "test")}, {"data.on_error": "skip"}):
        with pytest.raises(
            DataError, match=r"cannot be evaluated without labels\. .*--labels FILE"
        ):
            evaluate(trained / "run", settings=settings)
    flat = tmp_path / "photos"
    write_images(flat, 36, 50, 0)
    config = PretrainConfig.from_yaml(trained / "run" / "config.yaml").with_values(
        {"data.path": str(flat)}
    )
    run = pretrain(config, tmp_path / "run")
    with pytest.raises(DataError, match=r"are in no class folder .*give labels in a table"):
        evaluate(run, settings={"data.labels": "folders"})
    with pytest.raises(DataError, match=r"is a folder; --labels takes a table"):
        evaluate(run, labels=flat)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("data.on_eror", "data.on_error"), ("test_path", "data.test_path"), ("labels", "data.labels")],
)
def test_a_misspelt_setting_of_an_evaluation_is_not_taken_for_one_of_training(
    typed: str, meant: str
) -> None:
    with pytest.raises(
        ConfigError, match=f"{typed} is not a setting of an evaluation; did you mean {meant}"
    ):
        evaluation_settings([f"{typed}=x"])


def test_a_share_to_validate_on_is_refused_where_folds_hold_out(trained: Path) -> None:
    for labels, settings in ((write_labels(trained), {}), (None, {"data.labels": "folders"})):
        with pytest.raises(
            ConfigError, match=r"validation_per_class is for an evaluation with a test set"
        ):
            evaluate(
                trained / "run",
                labels=labels,
                settings={**settings, "data.validation_per_class": 1},
            )


def test_names_inside_a_zip_are_found_with_the_zip_as_their_root(
    trained: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as packed:
        for part in LEVELS:
            for n in range(12):
                packed.write(trained / "photos" / part / f"{n:02d}.png", f"{part}/{n:02d}.png")
    config = PretrainConfig.from_yaml(trained / "run" / "config.yaml")
    run = pretrain(
        config.with_values({"data.path": str(tmp_path / "photos.zip")}), tmp_path / "run"
    )
    assert evaluate(run, labels=write_labels(trained), probes=["knn"]).train_counts == [6, 6]
    settings = {"data.root": str(tmp_path / "photos.zip")}
    content = evaluate(run, labels=write_labels(trained), settings=settings, probes=["knn"])
    assert content.train_counts == [6, 6]


def write_grouped_labels(root: Path, pairs: list[tuple[int, int]]) -> Path:
    """A table of the first images, each of a class and a patient."""
    names = [
        f"{part}/{n:02d}.png" for part, num in (("dark", 24), ("bright", 12)) for n in range(num)
    ]
    rows = [f"{name},c{c},p{patient}" for name, (c, patient) in zip(names, pairs, strict=False)]
    file = root / "grouped.csv"
    file.write_text("\n".join(["path,label,patient", *rows]))
    return file


def test_classes_that_share_their_groups_are_tested_all_the_same(trained: Path) -> None:
    pairs = [(1, 0), (2, 0), (3, 0), (3, 0), (2, 1), (3, 1), (0, 1), (0, 1), (0, 2), (1, 2)]
    labels = write_grouped_labels(trained, [pair for pair in pairs for _ in range(3)])
    found = evaluate(
        trained / "run", labels=labels, settings={"data.group_by": "patient"}, probes=["knn"]
    )
    assert None not in found.probe("knn").per_class_accuracy
    assert "3 folds" in (found.probe("knn").detail or "")


@pytest.mark.journeys
def test_a_class_whose_groups_no_folds_can_part_is_left_out_with_a_warning(trained: Path) -> None:
    # each two of six patients have a class of their own, and there are five folds
    pairs = [(c, patient) for c, two in enumerate(combinations(range(6), 2)) for patient in two]
    labels = write_grouped_labels(trained, pairs)
    settings = {"data.group_by": "patient"}
    said = (
        r"1 of 15 classes are left out \(all their groups in one fold, with those of other classes"
    )
    with pytest.warns(UserWarning, match=said):
        found = evaluate(trained / "run", labels=labels, settings=settings, probes=["knn"])
    assert found.probe("knn").per_class_accuracy.count(None) == 1
    assert found.chance == 1 / 14
    with pytest.raises(
        DataError, match="all their groups in one fold, with those of other classes: c"
    ):
        evaluate(
            trained / "run", labels=labels, settings=settings, probes=["knn"], untested="raise"
        )
    with pytest.warns(UserWarning, match=said):
        compared = compare(
            trained / "run", ["pixels"], labels=labels, settings=settings, probes=["knn"]
        )
    assert compared.pairs[0].num_tested in (24, 26, 28), (
        "without classes that a seed could not part"
    )
