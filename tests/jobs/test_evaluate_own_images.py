"""Evaluating runs on somebody's own folders: bad files, two classes, classes that cannot be measured."""

from __future__ import annotations

import importlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdclr import PretrainConfig, Run, compare, embed, evaluate, few_labels, pretrain
from sdclr.data import DataConfig
from sdclr.errors import ConfigError, DataError
from sdclr.jobs.report import build_report, write_figures
from sdclr.presentation.html import render_html
from sdclr.presentation.tables import to_csv, to_markdown
from sdclr.storage import row_parts

pytestmark = pytest.mark.usefixtures("light_figures")

SETTINGS = {
    "views": {"size": 16},
    "backbone": {"name": "resnet10", "width": 2},
    "method": {"name": "sdclr"},
    "epochs": 1,
    "batch_size": 20,
    "health_every_epochs": 0,
}


def write_images(folder: Path, count: int, level: int) -> None:
    """Noise around one grey level; every image another."""
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng([level, number, folder.parent.name == "test"])
        pixels = rng.integers(max(level - 30, 0), min(level + 30, 255), (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def config(root: Path, **data: object) -> PretrainConfig:
    where = {
        "name": "images",
        "path": str(root / "train"),
        "test_path": str(root / "test"),
        "subset": "all",
    }
    return PretrainConfig.parse({**SETTINGS, "data": {**where, "labels": "folders", **data}})


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two classes, ok and defect: 30 and 12 training images, 5 and 4 test images."""
    for part, counts in (("train", (30, 12)), ("test", (5, 4))):
        for name, count, level in zip(("ok", "defect"), counts, (200, 60), strict=True):
            write_images(tmp_path / part / name, count, level)
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*cannot be decoded and are left out")
def test_a_run_that_skipped_bad_files_is_evaluated_with_the_same_files_left_out(
    folders: Path,
) -> None:
    for name in (
        "train/ok/003.png",
        "train/defect/000.png",
        "test/defect/001.png",
        "train/ok/007.png",
    ):
        cut_off(folders / name)
    with pytest.raises(DataError, match=r"data.max_skipped=3"):
        pretrain(config(folders, on_error="skip"), folders / "run")
    run = pretrain(
        config(folders, on_error="skip", max_skipped=5, validation_per_class=2), folders / "run"
    )
    content = evaluate(run)
    assert content.class_names == ["defect", "ok"]
    assert content.probes["knn"].num_test == [3, 5]
    assert content.train_counts == [9, 26], "those that were trained on"
    path = run.evaluation_path("cached")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"train_counts": [10, 28]}))
    again = evaluate(run, probes=["knn"])
    assert again.train_counts == [9, 26]
    assert set(again.probes) == set(content.probes), "as an earlier version counted; kept"
    assert balanced_few_shot(run) == {"defect": 9, "ok": 9}, "others step in for the bad ones"


def balanced_few_shot(run: Run) -> dict[str, int]:
    """Images of each class that the few-shot probe was trained on."""
    from sdclr.jobs.evaluate.images import evaluated_data, usable

    settings, data, _ = evaluated_data(run, {}, None)
    images = usable(run, settings, data, None).part("few_shot")
    names = [path.partition("/")[0] for path in images.paths]  # type: ignore[attr-defined]
    return {name: names.count(name) for name in sorted(set(names))}


@pytest.mark.filterwarnings("ignore:.*cannot be decoded and are left out")
def test_one_bad_file_of_thirteen_can_be_left_out_of_features(
    folders: Path, tmp_path: Path
) -> None:
    run = pretrain(config(folders), folders / "run")
    write_images(tmp_path / "new", 13, 90)
    cut_off(tmp_path / "new" / "004.png")
    data = DataConfig(name="images", path=str(tmp_path / "new"), subset="all", on_error="skip")
    out = embed(run.folder, data, tmp_path / "f.npz")
    with np.load(out) as file:
        assert len(file["features"]) == 12


@pytest.mark.parametrize("value", [1.5, -1, "many", -0.1])
def test_a_limit_that_is_neither_count_nor_share_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="max_skipped"):
        DataConfig.parse({"name": "images", "path": "x", "subset": "all", "max_skipped": value})


def test_two_classes_are_evaluated_and_reported(folders: Path) -> None:
    run = pretrain(config(folders), folders / "run")
    evaluate(run)
    row = build_report([run.folder]).rows[0]
    assert row.values["many"].mean >= 0
    assert np.isnan(row.values["medium"].mean)
    assert row.values["few"].mean >= 0


def test_a_list_with_one_class_is_refused_by_name_before_any_work(folders: Path) -> None:
    for part in ("train", "test"):
        names = sorted((folders / part / "ok").glob("*.png"))
        (folders / f"{part}.csv").write_text(
            "path,label\n" + "".join(f"{p.relative_to(folders)},ok\n" for p in names)
        )
    settings = config(
        folders, path=str(folders / "train.csv"), test_path=str(folders / "test.csv"), labels="none"
    )
    run = pretrain(settings, folders / "run")
    with pytest.raises(DataError, match="of one class, ok"):
        evaluate(run)


def test_a_class_that_cannot_be_measured_is_named_and_the_others_are_measured_on_request(
    folders: Path,
) -> None:
    write_images(folders / "train" / "rare", 6, 130)
    write_images(folders / "train" / "spoilt", 1, 20)
    write_images(folders / "test" / "spoilt", 2, 20)
    cut_off(folders / "train" / "spoilt" / "000.png")
    printed: list[str] = []
    from sdclr.presentation.progress import NoProgress

    class Noting(NoProgress):
        def print(self, text: str) -> None:
            printed.append(text)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run = pretrain(config(folders, on_error="skip"), folders / "run", progress=Noting())
    assert any("classes without a test image: rare" in text for text in printed), (
        "said before training"
    )
    assert any("no image of spoilt can be used" in str(one.message) for one in warned)
    with pytest.raises(
        DataError, match=r"no usable test image: rare; no usable training image: spoilt"
    ):
        evaluate(run)
    with pytest.raises(ConfigError, match="untested must be raise or leave_out"):
        evaluate(run, untested="leave")  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="2 of 4 classes are left out"):
        content = evaluate(run, untested="leave_out")
    assert content.chance == 1 / 3, "of spoilt nothing was learned; rare can be guessed"
    for probe in content.probes.values():
        accuracies = dict(zip(content.class_names, probe.per_class_accuracy, strict=True))
        assert [name for name, value in accuracies.items() if value is None] == ["rare", "spoilt"]
        assert accuracies["ok"] is not None
    with pytest.warns(UserWarning, match="2 of 4 classes are left out"):
        (pair,) = compare(run, ["pixels"], probes=["knn"], untested="leave_out").pairs
    assert pair.ours == pytest.approx(content.balancedness("knn").all), "of the same classes"
    report = build_report([run.folder])
    assert report.rows[0].values["all"].mean >= 0
    assert "Not tested, and in no mean: rare, spoilt." in report.description
    for render in (to_markdown, to_csv, render_html):
        assert "SDCLR" in render(report)


def exchange(a: Path, b: Path) -> None:
    """The contents of two folders, under the same names."""
    for path in sorted(a.iterdir()):
        other = b / path.name
        if other.exists():
            first, second = path.read_bytes(), other.read_bytes()
            path.write_bytes(second)
            other.write_bytes(first)


def test_pixels_exchanged_under_the_same_names_are_noticed_by_every_command(
    folders: Path, tmp_path: Path
) -> None:
    settings = config(folders)
    run = pretrain(settings, folders / "run")
    evaluate(run, probes=["knn"])
    exchange(folders / "test" / "ok", folders / "test" / "defect")
    with pytest.raises(ConfigError, match=r"test: 8 of other content \(defect/000.png"):
        evaluate(run, probes=["knn"])
    exchange(folders / "test" / "ok", folders / "test" / "defect")
    evaluate(run, probes=["knn"])
    write_images(folders / "noise", 1, 128)
    (folders / "train" / "ok" / "004.png").write_bytes((folders / "noise" / "000.png").read_bytes())
    for look in (
        lambda: evaluate(run, probes=["knn"]),
        lambda: pretrain(settings, folders / "run"),
    ):
        with pytest.raises(ConfigError, match=r"train: 1 of other content \(ok/004.png\)"):
            look()


def test_files_added_and_removed_are_named_when_a_run_goes_on(folders: Path) -> None:
    settings = config(folders)
    pretrain(settings, folders / "run")
    (folders / "train" / "ok" / "000.png").rename(folders / "train" / "ok" / "zzz.png")
    with pytest.raises(
        ConfigError, match=r"1 new, 1 missing(?s:.*)new: ok/zzz\.png, first missing: ok/000\.png"
    ):
        pretrain(settings, folders / "run")


def test_data_copied_elsewhere_are_the_same_data(folders: Path, tmp_path: Path) -> None:
    run = pretrain(config(folders), folders / "run")
    for part in ("train", "test"):
        shutil.copytree(folders / part, tmp_path / "copy" / part, copy_function=shutil.copyfile)
    text = run.config_path.read_text().replace(
        str(folders / "test"), str(tmp_path / "copy" / "test")
    )
    run.config_path.write_text(text)
    evaluate(run, probes=["knn"], data_path=str(tmp_path / "copy" / "train"))


def test_a_run_of_an_earlier_version_is_evaluated_with_a_remark(folders: Path) -> None:
    run = pretrain(config(folders), folders / "run")
    (run.folder / "images.tsv.gz").unlink()
    with pytest.warns(UserWarning, match="kept no record of its images' contents"):
        evaluate(run, probes=["knn"])


def test_class_names_that_swap_sides_are_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    arrays = {
        "train_images": rng.integers(0, 255, (60, 8, 8, 3), dtype=np.uint8),
        "train_labels": labels,
        "test_images": rng.integers(0, 255, (12, 8, 8, 3), dtype=np.uint8),
        "test_labels": np.arange(12) % 3,
    }
    np.savez(tmp_path / "x.npz", **arrays, class_names=np.array(["cat", "dog", "owl"]))
    data = {"name": "arrays", "path": str(tmp_path / "x.npz"), "subset": "all"}
    settings = PretrainConfig.parse({**SETTINGS, "data": {**data, "imbalance_ratio": 2.0}})
    run = pretrain(settings, tmp_path / "run")
    np.savez(tmp_path / "x.npz", **arrays, class_names=np.array(["dog", "cat", "owl"]))
    for look in (
        lambda: evaluate(run, probes=["knn"]),
        lambda: pretrain(settings, tmp_path / "run"),
    ):
        with pytest.raises(ConfigError, match="class 0 was cat and is dog"):
            look()


def test_features_of_exchanged_images_are_not_mixed_into_one_file(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pretrain(config(folders), folders / "run")
    job = importlib.import_module("sdclr.jobs.embed")
    monkeypatch.setattr(row_parts, "ROWS_PER_PART", 10)
    data = DataConfig(name="images", path=str(folders / "train"), subset="all", labels="folders")
    write = job.RowParts._write

    def stop_in_the_second_part(self: Any, first: int, features: np.ndarray) -> None:
        if first:
            raise KeyboardInterrupt
        write(self, first, features)

    with monkeypatch.context() as patch:
        patch.setattr(job.RowParts, "_write", stop_in_the_second_part)
        with pytest.raises(KeyboardInterrupt):
            embed(run.folder, data, tmp_path / "f.npz")
    exchange(folders / "train" / "ok", folders / "train" / "defect")
    with pytest.warns(UserWarning, match="features of other images"):
        embed(run.folder, data, tmp_path / "f.npz")
    embed(run.folder, data, tmp_path / "g.npz")
    with np.load(tmp_path / "f.npz") as mixed, np.load(tmp_path / "g.npz") as fresh:
        assert np.array_equal(mixed["features"], fresh["features"])


@pytest.fixture(scope="module")
def two_collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders a, b and c with a run on each; b has the names of a and other pixels, c another class."""
    root = tmp_path_factory.mktemp("collections")
    for name, levels in {"a": (200, 60), "b": (190, 70), "c": (200, 60)}.items():
        for part, counts in (("train", (8, 6)), ("test", (3, 3))):
            other = "scratch" if name == "c" else "defect"
            for kind, count, level in zip(("ok", other), counts, levels, strict=True):
                write_images(root / name / part / kind, count, level)
        for split in (1, 2):
            settings = config(root / name, split=split).with_values({"batch_size": 7})
            run = pretrain(settings, root / f"{name}{split}")
            evaluate(run, probes=["knn"])
    return root


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("b1", r"train images of other content, 14 of them \(first: defect/000.png\)"),
        ("b2", r"train images of other content, 14 of them \(first: defect/000.png\)"),
        ("c2", r"classes of one alone, such as defect"),
    ],
)
def test_runs_on_other_photographs_do_not_share_a_report(
    two_collections: Path, other: str, words: str
) -> None:
    root = two_collections
    assert build_report([root / "a1", root / "a2"]).rows[0].n == 2
    with pytest.raises(ConfigError, match=f"different collections of images .*{words}"):
        build_report([root / "a1", root / other])


def test_what_the_runs_recorded_tells_photographs_apart_where_evaluations_do_not(
    two_collections: Path, tmp_path: Path
) -> None:
    root = two_collections
    for name in ("a1", "a2", "b2"):
        shutil.copytree(root / name, tmp_path / name)  # a run that was moved
        file = tmp_path / name / "evaluation" / "cached.json"
        content = json.loads(file.read_text())
        del content["test_contents"], content["pool"]  # as an earlier version wrote it
        file.write_text(json.dumps(content))
    shutil.copytree(root / "a", tmp_path / "moved", copy_function=shutil.copyfile)
    moved = tmp_path / "a2" / "config.yaml"
    moved.write_text(moved.read_text().replace(str(root / "a"), str(tmp_path / "moved")))
    evaluate(tmp_path / "a2", probes=["knn"])
    assert build_report([tmp_path / "a1", tmp_path / "a2"]).rows[0].n == 2
    with pytest.raises(ConfigError, match="train images of other content, 14 of them"):
        build_report([tmp_path / "a1", tmp_path / "b2"])
    (tmp_path / "b2" / "images.tsv.gz").write_bytes(b"no record")
    with pytest.warns(UserWarning, match="on the same images as the others is not known"):
        build_report([tmp_path / "a1", tmp_path / "b2"])


def test_two_test_folders_with_the_same_names_are_two_test_sets(
    two_collections: Path, tmp_path: Path
) -> None:
    root = two_collections
    shutil.copytree(root / "a1", tmp_path / "one")
    shutil.copytree(root / "a2", tmp_path / "two")
    theirs = {"data.test_path": str(root / "b" / "test")}
    evaluate(tmp_path / "one", probes=["linear"])
    before = evaluate(tmp_path / "one", probes=["knn"])
    assert list(before.probes) == ["knn", "linear"], "these stay"
    said = "linear in .* .other test images., not comparable with this one"
    with pytest.warns(UserWarning, match=said):
        after = evaluate(tmp_path / "one", probes=["knn"], settings=theirs)
    assert list(after.probes) == ["knn"]
    assert after.split == before.split
    assert after.test_contents != before.test_contents
    with pytest.raises(ConfigError, match="test images of other content"):
        build_report([tmp_path / "one", tmp_path / "two"])


def test_results_in_another_precision_are_replaced_with_a_warning(
    two_collections: Path, tmp_path: Path
) -> None:
    shutil.copytree(two_collections / "a1", tmp_path / "one")
    with pytest.warns(UserWarning, match="knn in .*features of another precision"):
        found = evaluate(tmp_path / "one", probes=["linear"], settings={"precision": "bf16"})
    assert (list(found.probes), found.features_in) == (["linear"], "bf16")


def test_files_beside_an_evaluation_of_other_data_are_not_shown(
    two_collections: Path, tmp_path: Path
) -> None:
    shutil.copytree(two_collections / "a1", tmp_path / "one")
    theirs = {"data.test_path": str(two_collections / "b" / "test")}
    run, probes = tmp_path / "one", ["knn"]
    compare(run, ["pixels"], probes=probes)
    few_labels(run, labels_per_class=[2], label_seeds=2)
    written = write_figures([run], tmp_path / "figures")
    assert {"against.csv", "few_labels_1.csv"} <= {file.name for file in written.files}

    evaluate(run, probes=probes, settings=theirs)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        written = write_figures([run], tmp_path / "others")
    for name in ("against", "few_labels"):
        said = f"{name}.json was measured otherwise than the evaluation (other test images)"
        assert any(said in str(one.message) for one in warned)
    assert not {"against.csv", "few_labels_1.csv"} & {file.name for file in written.files}
