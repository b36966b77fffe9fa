"""One's own images: a folder, a list and a table become the same collection, or an error that says why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from image_folder_stand_in import COUNTS, make_folder, write_txt
from sdclr.data import Data, DataConfig, build_data
from sdclr.data.sources.own_images import class_names_of
from sdclr.data.sources.split_folders import has_splits
from sdclr.data.views.parameters import ViewSpec
from sdclr.errors import ConfigError, DataError, MissingInputError
from shard_stand_in import write_shard

CLASSES = list(COUNTS)


def config(path: Path, **values: object) -> DataConfig:
    return DataConfig.parse({"name": "images", "path": str(path)} | values)


def labelled(data: Data) -> list[tuple[str, str]]:
    return [
        (path, data.class_names[c])
        for path, c in zip(data.train.paths, data.train.labels, strict=True)
    ]


# ---- folders


def test_a_folder_is_taken_whole_and_without_labels(photos: Path) -> None:
    data = build_data(config(photos, subset="all"))
    assert data.train.paths == tuple(
        sorted(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))
    )
    assert (data.split, data.test, data.class_names, data.remarks) == (None, None, [], ())
    assert data.pretraining_images("all") is data.train
    assert data.manifest()["source"] == "unlabelled"
    with pytest.raises(ConfigError, match=r"data.subset=long_tail needs labels.*data.subset=all"):
        data.pretraining_images("long_tail")


def test_class_folders_are_classes_when_that_is_said(own: Path) -> None:
    (own / "cat" / "indoors").mkdir()
    (own / "cat" / "0.jpg").rename(own / "cat" / "indoors" / "0.jpg")
    data = build_data(config(own, labels="folders"))
    assert data.class_names == CLASSES
    assert all(path.split("/")[0] == name for path, name in labelled(data))
    assert data.split is not None
    assert data.split.counts("long_tail", data.train.labels, 3) == list(COUNTS.values())
    with pytest.raises(
        DataError, match=r"images cannot be evaluated: .*data.labels=folders .*and data.test_path"
    ):
        data.labelled_split()


def test_images_outside_of_class_folders_are_named(own: Path) -> None:
    shutil.copy(own / "cat" / "0.jpg", own / "stray.jpg")
    with pytest.raises(
        DataError,
        match=r"1 of 13 images are in no class folder .*first: stray\.jpg.*data.labels=none",
    ):
        build_data(config(own, labels="folders"))


def test_a_single_class_folder_is_no_classes(photos: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"has one class folder only, photos\. Give the folder whose sub-folders are",
    ):
        build_data(config(photos.parent, labels="folders"))
    assert len(build_data(config(photos.parent, subset="all")).train) == 12


def test_labels_change_nothing_about_the_images_that_are_trained_on(photos: Path) -> None:
    """The same order, so the same positions: a run does not depend on whether labels were known."""
    unlabelled = build_data(config(photos, subset="all")).pretraining_images("all")
    data = build_data(config(photos, labels="folders"))
    for subset in ("long_tail", "all"):
        images = data.pretraining_images(subset)
        assert images.paths == unlabelled.paths


def test_folders_to_leave_out_and_other_files_are_remarked_on(own: Path) -> None:
    (own / "notes.md").write_text("")
    (own / "runs").mkdir()
    shutil.copy(own / "cat" / "0.jpg", own / "runs" / "sheet.jpg")
    assert len(build_data(config(own, subset="all")).train) == 13
    data = build_data(config(own, subset="all"), exclude=[own / "runs"])
    assert len(data.train) == 12
    assert data.remarks == ("files that are not images left out: 1", "excluded folders left out: 1")


def test_names_of_any_bytes_can_be_trained_on(own: Path) -> None:
    for name in ("a\nb", 'it\'s "one"', "caf\udce9"):
        (own / name).mkdir()
        shutil.copy(own / "cat" / "0.jpg", own / name / "x.jpg")
    data = build_data(config(own, labels="folders"))
    assert set(data.class_names) == {*CLASSES, r"'a\nb'", 'it\'s "one"', r"'caf\udce9'"}
    assert str(data.manifest()).isprintable()
    images = data.pretraining_images("all").to(torch.device("cpu"))
    (views,) = images.views([torch.arange(15)], ViewSpec(size=8), seed=1, epoch=1)
    assert views.a.shape == (15, 3, 8, 8)


# ---- lists and tables


def test_a_labelled_list_gives_the_classes_of_its_numbers(photos: Path, tmp_path: Path) -> None:
    paths = ["yak/1.jpg", "cat/2.jpg", "dog/0.jpg", "cat/0.jpg"]
    file = tmp_path / "train.txt"
    file.write_text(
        "".join(f"{path} {label}\n" for path, label in zip(paths, (2, 10, 3, 10), strict=True))
    )
    data = build_data(config(file, root=str(photos)))
    assert data.train.paths == tuple(paths), "the order of the list"
    assert data.class_names == ["2", "3", "10"], "in the order of the numbers"
    assert data.train.labels.tolist() == [0, 2, 1, 2]
    assert data.train.root == photos


def test_lists_tables_and_folders_are_the_same_collection(own: Path) -> None:
    paths = sorted(str(path.relative_to(own)) for path in own.rglob("*.jpg"))
    table = own / "table.csv"
    table.write_text(
        "".join(["file,class\n", *(f"{path},{path.split('/')[0]}\n" for path in paths)])
    )
    sources = {
        "folder": build_data(config(own, labels="folders")),
        "table": build_data(config(table)),
        "list": build_data(config(write_txt(own / "list.txt", paths, CLASSES))),
    }
    assert len({data.fingerprint for data in sources.values()}) == 1
    assert sources["folder"].class_names == sources["table"].class_names == CLASSES
    assert sources["list"].class_names == ["0", "1", "2"], "a list knows numbers only"
    unlabelled = [
        build_data(config(own, subset="all")),
        build_data(config(write_txt(own / "plain.txt", paths))),
    ]
    assert len({data.fingerprint for data in unlabelled}) == 1
    assert unlabelled[0].fingerprint != sources["folder"].fingerprint


def test_a_table_with_some_labels_is_one_without_and_a_classifier_learns_from_those(
    own: Path,
) -> None:
    paths = sorted(str(path.relative_to(own)) for path in own.rglob("*.jpg"))
    table = own / "some.csv"
    rows = [f"{path},{'' if n == 1 else path.split('/')[0]}\n" for n, path in enumerate(paths)]
    table.write_text("".join(["path,label\n", *rows]))
    plain = build_data(config(write_txt(own / "plain.txt", paths)))
    with pytest.warns(
        UserWarning,
        match=rf"1 of {len(paths)} rows of .*some\.csv have no label \(first: line 3\).*--labels",
    ):
        data = build_data(config(table, subset="all"))
    assert data.split is None
    assert data.fingerprint == plain.fingerprint, "it can be filled in while a run trains"
    excluded = build_data(config(table, exclude=[paths[1]]))
    assert excluded.class_names == CLASSES, "only what is taken needs a label"
    again = build_data(config(table, exclude=[paths[1]]), unlabelled="refuse")
    assert again.fingerprint == excluded.fingerprint
    learnt = build_data(config(table), for_classifier=True, unlabelled="leave_out")
    assert list(learnt.train.names) == paths[:1] + paths[2:]
    assert any("without a label left out: 1" in remark for remark in learnt.remarks)
    with pytest.raises(DataError, match="line 3: no label"):
        build_data(config(own, labels="folders", exclude=["*.csv"], test_path=str(table)))


def test_a_table_whose_labels_are_still_to_be_filled_in_is_one_without(own: Path) -> None:
    paths = sorted(str(path.relative_to(own)) for path in own.rglob("*.jpg"))
    table = own / "to_label.csv"
    table.write_text("".join(["path,label\n", *(f"{path},\n" for path in paths)]))
    data = build_data(config(table, subset="all"))
    assert data.split is None
    assert data.remarks[0].startswith("no row of")
    with pytest.raises(DataError, match="no row has a label"):
        build_data(config(table), for_classifier=True, unlabelled="leave_out")


def test_paths_of_a_list_begin_in_its_own_folder_or_in_the_root(own: Path) -> None:
    here = write_txt(own / "list.txt", ["cat/0.jpg"])
    # not beside the folders of all other tests, of which there are more than are looked into
    (own.parent / "lists").mkdir()
    there = write_txt(own.parent / "lists" / "list.txt", ["cat/0.jpg"])
    assert build_data(config(here)).train.root == own
    assert build_data(config(there, root=str(own))).train.root == own
    with pytest.raises(
        MissingInputError, match=r"cat/0\.jpg is not in .*\. Add data\.root=.*photos to"
    ):
        build_data(config(there)).train.to(torch.device("cpu"))
    with pytest.raises(
        MissingInputError, match=r"data.root=.*nowhere is not a folder; the paths of .*list\.txt"
    ):
        build_data(config(there, root=str(own / "nowhere")))


def test_settings_that_do_nothing_for_a_source_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"data.root=.* is for a \.txt list or a \.csv, and .*photos is a folder"
    ):
        build_data(config(photos, root=str(tmp_path)))
    listed = write_txt(tmp_path / "list.txt", ["cat/0.jpg"])
    with pytest.raises(
        ConfigError, match=r"data.labels=folders is for folders; .*list\.txt is a file"
    ):
        build_data(config(listed, labels="folders"))


# ---- what is left out by name


@pytest.fixture
def sources(own: Path, tmp_path: Path) -> list[Path]:
    """The twelve images with two masks in a folder, a list, a table and shards."""
    for name in ("cat/0_mask.png", "old/dog.jpg"):
        (own / name).parent.mkdir(exist_ok=True)
        shutil.copy(own / "cat" / "0.jpg", own / name)
    paths = sorted(str(path.relative_to(own)) for path in own.rglob("*.*"))
    table = tmp_path / "photos.csv"
    table.write_text("\n".join(["path", *(f"photos/{path}" for path in paths)]))
    names = [(path, (own / path).read_bytes()) for path in paths]
    write_shard(tmp_path / "shards" / "x.tar", names)
    return [
        own,
        write_txt(tmp_path / "list.txt", [f"photos/{path}" for path in paths]),
        table,
        tmp_path / "shards",
    ]


def test_globs_leave_the_same_out_of_every_source(sources: list[Path]) -> None:
    for source in sources:
        assert len(build_data(config(source, subset="all")).train) == 14
        data = build_data(config(source, subset="all", exclude=["*_mask.png", "old"]))
        assert len(data.train) == 12
        assert not any("mask" in path or "old" in path for path in data.train.paths)
        (remark,) = data.remarks
        assert "data.exclude matches left out: 2" in remark


def test_a_glob_that_matches_nothing_is_a_warning_and_one_for_everything_an_error(
    sources: list[Path],
) -> None:
    for source in sources:
        with pytest.warns(
            UserWarning, match=r"data\.exclude: nothing below .* matches 'thumbz'\. A glob"
        ):
            build_data(config(source, subset="all", exclude=["thumbz", "old"]))
        with pytest.raises(DataError, match=r"data\.exclude"):
            build_data(config(source, subset="all", exclude=["*"]))


def test_one_glob_needs_no_brackets_and_a_wrong_one_is_refused() -> None:
    assert config(Path("x"), exclude="thumbs").exclude == ("thumbs",)
    assert config(Path("x")).with_overrides(['exclude=["a","b"]']).exclude == ("a", "b")
    for glob in ("../x", "/x", ""):
        with pytest.raises(ConfigError, match="exclude"):
            config(Path("x"), exclude=[glob])
    with pytest.raises(ConfigError, match=r"exclude is for name=images only"):
        DataConfig.parse({"name": "digits", "exclude": ["a"]})


def test_a_glob_for_test_images_leaves_them_out_and_says_so(own: Path, tmp_path: Path) -> None:
    test = Path(shutil.copytree(own, tmp_path / "test"))
    shutil.copy(test / "cat" / "0.jpg", test / "cat" / "0_mask.png")
    data = build_data(config(own, labels="folders", test_path=str(test), exclude="*_mask.png"))
    assert len(data.test) == 12
    assert data.remarks == ("test set: files and folders that data.exclude matches left out: 1",)


def test_tiff_files_are_said_to_be_turned_in_any_case(own: Path) -> None:
    shutil.copy(own / "cat" / "0.jpg", own / "cat" / "0.TIF")
    assert "TIFF files, turned as they specify despite data.exif_rotation=false: 1" in (
        build_data(config(own, subset="all", exif_rotation=False)).remarks
    )
    assert build_data(config(own, subset="all")).remarks == (), "own images are turned by default"


# ---- folders that are splits


@pytest.mark.parametrize(
    "names", [("train", "val"), ("Training", "Validation", "TEST"), ("train_set", "test-images")]
)
def test_splits_are_not_taken_for_classes(own: Path, names: tuple[str, ...]) -> None:
    for old, new in zip(CLASSES, names, strict=False):
        (own / old).rename(own / new)
    for rest in CLASSES[len(names) :]:
        shutil.rmtree(own / rest)
    with pytest.raises(
        DataError,
        match=rf"are splits by their names .*Give .*{names[0]} as data\.path .*data\.test_path",
    ):
        build_data(config(own, labels="folders"))
    (remark,) = build_data(config(own, subset="all")).remarks
    assert "are splits by their names" in remark


def test_a_class_called_train_is_one_beside_others(own: Path) -> None:
    (own / "cat").rename(own / "train")
    data = build_data(config(own, labels="folders"))
    assert "train" in data.class_names
    assert data.remarks == ()


# ---- the real collection


def test_the_clothing_lists_and_folders_are_the_same_images(sdclr_data: Path) -> None:
    root = sdclr_data / "clothing_lt"
    lists = build_data(config(root / "train.txt", test_path=str(root / "test.txt")))
    folders = build_data(config(root / "train", labels="folders", test_path=str(root / "test")))
    assert len(lists.train) == len(folders.train) == 495
    assert len(lists.test) == len(folders.test) == 68
    assert folders.class_names == (root / "classes.txt").read_text().split()
    listed, found = (
        set(zip(d.train.paths, d.train.labels.tolist(), strict=True)) for d in (lists, folders)
    )
    assert {(path.removeprefix("train/"), label) for path, label in listed} == found
    split = folders.labelled_split()
    counts = split.counts("long_tail", folders.train.labels, 17)
    assert (sum(counts), max(counts), min(counts)) == (495, 100, 2)
    assert split.counts("few_shot", folders.train.labels, 17) == [2] * 17
    images, bad = folders.part("test").verified("raise", lambda done: None)
    assert (len(images), bad) == (68, [])
    assert np.all(images.sizes > 0)


# ---- tables and globs of other people


def test_labels_that_are_numbers_are_in_the_order_of_their_values(own: Path) -> None:
    for texts in (
        ["1.0", "2.0", "10.0"],
        ["-1", "0", "2.5"],
        ["2", "10", "10.5"],
        ["10", "9x", "a"],
    ):
        rows = [f"cat/{n}.jpg,{text}" for n, text in enumerate(texts)]
        (own / "t.csv").write_text("path,label\n" + "\n".join(reversed(rows)))
        assert build_data(config(own / "t.csv")).class_names == texts


def test_a_name_that_begins_with_an_apostrophe_is_found_as_it_is(own: Path) -> None:
    (own / "cat" / "0.jpg").rename(own / "'=a.jpg")
    (own / "cat" / "1.jpg").rename(own / "-b.jpg")
    (own / "t.csv").write_text("path\n'=a.jpg\n'-b.jpg\n")
    assert build_data(config(own / "t.csv")).train.paths == ("'=a.jpg", "-b.jpg"), (
        "the guard of our CSV, and none"
    )


def test_absolute_paths_elsewhere_are_answered_with_their_folder(own: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "t.csv"
    table.write_text(f"path\n{own}/cat/0.jpg\n{own}/dog/0.jpg\n")
    with pytest.raises(
        DataError, match=rf"absolute ones must be below it\. Those .* do with data\.root={own} \("
    ):
        build_data(config(table, subset="all"))
    assert build_data(config(table, subset="all", root=str(own))).train.paths == (
        "cat/0.jpg",
        "dog/0.jpg",
    )


def test_the_other_columns_stay_with_their_images(own: Path) -> None:
    (own / "t.csv").write_text(
        "path;label;camera\ncat/0.jpg;a;k1\ndog/0.jpg;b;k2\nyak/0.jpg;b;k3\n"
    )
    data = build_data(config(own / "t.csv", exclude=["dog"]))
    assert data.train.columns["camera"].tolist() == ["k1", "k3"]
    assert data.train.at(np.array([1])).columns["camera"].tolist() == ["k3"]


def test_a_column_that_no_table_is_given_for_is_refused(own: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.path_column=x is for tables"):
        build_data(config(own, subset="all", path_column="x"))
    with pytest.raises(ConfigError, match=r"label_column is for name=images only"):
        DataConfig.parse({"name": "digits", "label_column": "x"})


# ---- folders of splits, taken apart


def make_splits(root: Path, **folders: dict[str, int]) -> Path:
    """root/train/cat/0.jpg and so on."""
    for seed, (split, classes) in enumerate(folders.items()):
        make_folder(root / split, classes, seed=seed)
    return root


ALL = {"cat": 4, "dog": 3}


def test_of_splits_train_is_trained_on_and_the_others_measure(tmp_path: Path) -> None:
    root = make_splits(
        tmp_path / "set", train=ALL, validation={"dog": 1, "cat": 2}, test={"cat": 1, "dog": 1}
    )
    data = build_data(config(root, layout="splits", labels="folders"))
    trained = data.pretraining_images("all")
    assert trained.paths == tuple(
        f"train/{name}/{n}.jpg" for name, num in ALL.items() for n in range(num)
    )
    assert data.part("long_tail").paths == trained.paths
    assert data.part("validation").paths == (
        "validation/cat/0.jpg",
        "validation/cat/1.jpg",
        "validation/dog/0.jpg",
    )
    assert data.part("test").paths == ("test/cat/0.jpg", "test/dog/0.jpg")
    assert all(path.startswith("train/") for path in data.part("few_shot").paths)
    assert data.class_names == ["cat", "dog"]
    assert (
        "train (7) is trained on, an evaluation uses test (2), validation (3)" in data.remarks[-1]
    )


def test_without_labels_only_train_counts(tmp_path: Path) -> None:
    root = make_splits(tmp_path / "set", training=ALL, val={"yak": 2})
    data = build_data(config(root, subset="all", layout="splits"))
    assert len(data.train) == 7
    assert (data.test, data.split) == (None, None)


def test_without_a_test_folder_validation_is_the_test_set(tmp_path: Path) -> None:
    root = make_splits(tmp_path / "set", train2017=ALL, val2017={"cat": 1, "dog": 1})
    data = build_data(config(root, layout="splits", labels="folders"))
    assert data.part("test").paths == ("val2017/cat/0.jpg", "val2017/dog/0.jpg")
    assert len(data.part("validation")) == 0


def test_splits_that_cannot_be_taken_apart_are_refused_with_a_cure(tmp_path: Path) -> None:
    full = make_splits(tmp_path / "full", train=ALL, val={"cat": 1}, test={"cat": 1})
    with pytest.raises(
        ConfigError, match=r"validation_per_class holds out .* a folder of validation images"
    ):
        build_data(config(full, layout="splits", labels="folders", validation_per_class=1))
    with pytest.raises(ConfigError, match=r"has a folder of test images, and data\.test_path="):
        build_data(config(full, layout="splits", labels="folders", test_path=str(full / "val")))
    unknown = make_splits(tmp_path / "unknown", train=ALL, val={"emu": 1}, test={"cat": 1})
    with pytest.raises(
        DataError, match=r"validation set .* has a class that no training image .* has: emu"
    ):
        build_data(config(unknown, layout="splits", labels="folders"))
    none = make_splits(tmp_path / "none", val=ALL, test=ALL)
    with pytest.raises(DataError, match=r"no folder of .*none is called train"):
        build_data(config(none, subset="all", layout="splits"))
    (tmp_path / "list.txt").write_text("a.jpg\n")
    with pytest.raises(ConfigError, match=r"data\.layout=splits is for a folder"):
        build_data(config(tmp_path / "list.txt", subset="all", layout="splits"))


def test_images_in_no_split_are_left_out_and_counted(tmp_path: Path) -> None:
    root = make_splits(tmp_path / "set", train=ALL, test={"cat": 1}, extra={"cat": 2})
    data = build_data(config(root, labels="folders", layout="splits"))
    assert "images in no split left out: 2 (first: extra/cat/0.jpg)" in data.remarks
    assert len(data.train) == 7


def test_folders_are_recognised_as_splits_by_all_their_names(tmp_path: Path) -> None:
    for number, (names, expected) in enumerate(
        (
            (["train", "val"], True),
            (["Train", "TEST", "dev"], True),
            (["train", "test", "notes"], True),
            (["train", "cat"], False),
            (["train"], False),
            (["val", "test"], False),
            (["training_days", "test"], False),
        )
    ):
        root = tmp_path / str(number)
        for name in names:
            (root / name).mkdir(parents=True)
            if name != "notes":
                (root / name / "x.jpg").touch()
        assert has_splits(root) is expected, names


def test_two_spellings_of_a_number_are_two_classes_and_a_warning() -> None:
    with pytest.warns(UserWarning, match="labels 1 and 1.0 are the same number in two spellings"):
        assert class_names_of(["2", "1", "1.0"]) == ["1", "1.0", "2"]
    assert class_names_of(["10", "2", "1.5"]) == ["1.5", "2", "10"]
