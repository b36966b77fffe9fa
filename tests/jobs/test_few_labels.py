"""Few labels of one's own: which images they are, what is measured with them, and what is refused before any work."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sdclr import PretrainConfig, Run, cli, evaluate, few_labels, load_backbone, pretrain, recipe
from sdclr.data import build_data
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.label_sets import draw_labelled
from sdclr.data.trained_images import trained_images
from sdclr.errors import ConfigError, DataError, MissingInputError, SdclrError
from sdclr.evaluation.features import extract_features
from sdclr.evaluation.probe import GivenImages, ProbeTask
from sdclr.evaluation.probe_settings import SVMConfig
from sdclr.evaluation.svm_probe import LinearSVM
from sdclr.jobs.evaluate import frozen_features
from sdclr.jobs.evaluate.label_sets import LabelSetRequest, label_sets
from sdclr.presentation.progress import NoProgress
from sdclr.run.files import FEW_LABELS_FILE
from sdclr.workflows.reports import report

TINY = ["backbone.width=4", "views.size=8", "batch_size=200", "epochs=1", "health_every_epochs=0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("few") / "run"
    return pretrain(recipe("digits_sdclr").with_overrides(TINY), folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on image files of two classes, with a test set."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for part in ("images", "test"):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    config = recipe("digits_simclr").with_overrides([*TINY, "batch_size=4"])
    values = {
        "data.name": "images",
        "data.path": str(folder / "images"),
        "data.labels": "folders",
        "data.test_path": str(folder / "test"),
        "data.subset": "all",
        "data.imbalance_ratio": 100,
        "data.validation_per_class": 0,
    }
    return pretrain(config.with_values(values), folder / "run")


def points(run: Run) -> list[dict[str, Any]]:
    file = run.folder / FEW_LABELS_FILE
    found: list[dict[str, Any]] = json.loads(file.read_text())["points"] if file.is_file() else []
    return found


def sdclr(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(cli.app, [str(one) for one in arguments])
    return found.exit_code, found.output


def test_drawn_sets_are_a_function_of_the_seed_and_larger_ones_hold_smaller_ones() -> None:
    labels = np.random.default_rng(1).integers(0, 3, 60)
    small, large = (draw_labelled(labels, [n] * 3, seed=4) for n in (2, 5))
    assert np.bincount(labels[small]).tolist() == [2, 2, 2]
    assert set(small) < set(large)
    assert np.array_equal(small, draw_labelled(labels, [2, 2, 2], seed=4))
    assert not np.array_equal(small, draw_labelled(labels, [2, 2, 2], seed=5))
    other = draw_labelled(labels, [2, 9, 0], seed=4)
    assert set(small[labels[small] == 0]) <= set(other), "whatever the other classes get"
    assert not (labels[other] == 2).any()


def test_a_curve_over_labels_per_class_and_shares_is_recorded(run: Run) -> None:
    found = few_labels(run, labels_per_class=[1, 20], label_share=[0.5], label_seeds=3)
    one, twenty, half = found
    counts = run.read_json("split.json")["counts"]["train"]
    assert [one.num_labelled, twenty.num_labelled] == [10, 200]
    assert half.num_labelled == sum(int(count / 2 + 0.5) for count in counts)
    assert one.seeds == [1, 2, 3]
    assert one.mean < twenty.mean
    assert twenty.interval is not None
    assert twenty.interval[0] < twenty.mean < twenty.interval[1]
    half_width = 4.302653 * np.std(twenty.accuracies, ddof=1) / np.sqrt(3)
    assert twenty.interval[1] - twenty.mean == pytest.approx(half_width)
    recorded = points(run)
    assert [point["accuracies"] for point in recorded[-3:]] == [one.accuracies for one in found]
    (again,) = few_labels(run, labels_per_class=[20], label_seeds=3)
    assert again.accuracies == twenty.accuracies
    assert len(points(run)) == len(recorded), "the same sets replace their point"


def test_the_images_of_a_file_are_what_is_learned_from(run: Run, tmp_path: Path) -> None:
    data = build_data(recipe("digits_sdclr").with_overrides(TINY).data)
    assert data.split is not None
    assert data.train.labels is not None
    assert data.test is not None
    positions = draw_labelled(data.train.labels, [3] * 10, seed=9)
    positions = np.setdiff1d(positions, data.split.validation)[::-1].copy()
    np.save(tmp_path / "mine.npy", positions.astype(np.int32))
    (point,) = few_labels(run, few_shot=tmp_path / "mine.npy", protocol="ts")
    backbone = load_backbone(run.folder)
    chosen = np.sort(positions)
    train, test = data.train.at(chosen), data.test
    features, tests = (extract_features(backbone, one.stills(8)) for one in (train, test))
    svm = LinearSVM(SVMConfig())
    images = GivenImages(features, data.train.labels[chosen])
    svm.fit(ProbeTask(images, images, 10))
    right = svm.predict(tests) == test.labels
    expected = np.mean([right[test.labels == c].mean() for c in range(10)])
    assert point.accuracies == [pytest.approx(expected)]
    assert (point.seeds, point.source, point.interval) == ([0], "mine.npy", None)


def test_names_as_text_and_as_csv_mean_the_same_images(photos: Run, tmp_path: Path) -> None:
    before, names = len(points(photos)), ["dog/1.png", "cat/0.png", "cat/3.png"]
    (tmp_path / "names.txt").write_text("".join(f"{name}\n" for name in names))
    (tmp_path / "names.csv").write_text("path,note\n" + "".join(f"{n},x\n" for n in names))
    folder = Path(photos.settings()["data"]["path"])
    (tmp_path / "absolute.txt").write_text("".join(f"{folder / name}\n" for name in names))
    found = [
        few_labels(photos, few_shot=tmp_path / name)[0]
        for name in ("names.txt", "names.csv", "absolute.txt")
    ]
    assert {point.num_labelled for point in found} == {3}
    assert len({tuple(point.accuracies) for point in found}) == 1
    assert len(points(photos)) == before + 3, "told apart by their content"


REFUSED_FILES = {
    "outside.npy": (np.array([1, 5000]), DataError, "entry 1: 5000 is not a position"),
    "negative.npy": (np.array([-1, 3]), DataError, "entry 0: -1 is not a position"),
    "twice.npy": (np.array([4, 9, 4]), DataError, "position 4 2 times"),
    "fractions.npy": (np.array([0.5]), DataError, "must hold whole numbers"),
    "square.npy": (np.zeros((2, 2), np.int64), DataError, "must hold whole numbers"),
    "empty.npy": (np.array([], np.int64), DataError, "no image of 10 of 10 classes"),
    "unknown.txt": ("1\n2\n77777\n", DataError, "line 3: 77777 is not a training image"),
    "twice.csv": ("path\n4\n9\n4\n", DataError, "4"),
    "gone.txt": (None, MissingInputError, "is not a file"),
}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_a_file_that_names_no_such_images_is_refused_before_any_work(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, error, message = REFUSED_FILES[name]
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif content is not None:
        path.write_text(content)
    monkeypatch.setattr(frozen_features, "extract_features", None)
    with pytest.raises(error, match=message):
        few_labels(run, few_shot=path)


@pytest.mark.parametrize("measure", [evaluate, partial(few_labels, labels_per_class=[1])])
def test_a_protocol_that_chooses_on_validation_images_is_refused_where_there_are_none(
    photos: Run, measure: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFiles, "picture", lambda *_: pytest.fail("an image was opened"))
    monkeypatch.setattr(ImageFiles, "sizes", property(lambda _: pytest.fail("one was measured")))
    with pytest.raises(DataError, match="chooses its epoch on validation images"):
        measure(photos, protocol="sdclr")


def test_validation_images_and_missing_classes_are_named(run: Run, tmp_path: Path) -> None:
    data = build_data(recipe("digits_sdclr").with_overrides(TINY).data)
    assert data.split is not None
    assert data.train.labels is not None
    np.save(tmp_path / "held.npy", data.split.few_shot)
    few_labels(run, few_shot=tmp_path / "held.npy")
    labels = data.train.labels[data.split.few_shot]
    np.save(tmp_path / "no3.npy", data.split.few_shot[labels != 3])
    with pytest.raises(DataError, match=r"no image of 1 of 10 classes \(3\)"):
        few_labels(run, few_shot=tmp_path / "no3.npy")
    if len(data.split.validation):
        leaking = np.union1d(data.split.few_shot, data.split.validation[:1])
        np.save(tmp_path / "leak.npy", leaking)
        with pytest.raises(DataError, match="1 image that the split holds out for validation"):
            few_labels(run, few_shot=tmp_path / "leak.npy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels_per_class": [0]}, "whole numbers of at least 1, got 0"),
        ({"labels_per_class": [5, 5]}, "has 5 twice"),
        ({"labels_per_class": [2000]}, "10 of 10 classes have fewer training images; "),
        ({"label_share": [10]}, r"in \(0, 1\], got 10; did you mean 0.1\?"),
        ({"label_share": [0.0]}, r"in \(0, 1\], got 0\."),
        ({"label_share": [float("nan")]}, r"in \(0, 1\], got nan"),
        ({"labels_per_class": [1], "label_seeds": 0}, "--label-seeds must be in 1 .. 1000, got 0"),
        ({}, "say which images have a label"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused_before_any_work(
    options: dict[str, Any], message: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_features, "extract_features", None)
    with pytest.raises(ConfigError, match=message):
        few_labels(run, **options)


def test_a_share_below_half_an_image_gives_one_and_says_so(run: Run) -> None:
    data = build_data(recipe("digits_sdclr").with_overrides(TINY).data)
    with pytest.warns(UserWarning, match="less than half an image of 10 of 10 classes"):
        (found,) = label_sets(LabelSetRequest(shares=[0.001], num_seeds=1), data, "raise")
    assert len(found.sets[0]) == 10


def test_every_label_is_one_set_without_an_interval(photos: Run) -> None:
    each, half, whole = few_labels(photos, label_share=[1], labels_per_class=[4, 2])
    for point in (whole, each):
        assert (point.num_labelled, point.seeds, point.interval) == (8, [1], None)
        assert "one set: no interval" in point.sentence()
    assert (half.num_labelled, half.seeds) == (4, [1, 2, 3, 4, 5])


def test_a_share_below_half_an_image_is_warned_of_once(run: Run) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        few_labels(run, label_share=[0.001], label_seeds=1)
    assert len([one for one in warned if "less than half an image" in str(one.message)]) == 1


def test_points_of_other_weights_are_not_kept(photos: Run, tmp_path: Path) -> None:
    few_labels(photos, labels_per_class=[1], label_seeds=1)
    content = json.loads((photos.folder / FEW_LABELS_FILE).read_text())
    (photos.folder / FEW_LABELS_FILE).write_text(json.dumps(content | {"backbone": "0" * 16}))
    few_labels(photos, labels_per_class=[2], label_seeds=1)
    assert [point["value"] for point in points(photos)] == [2]


@pytest.mark.journeys
@pytest.mark.usefixtures("light_figures")
def test_the_command_line_shows_the_curve_and_the_page_has_it(run: Run) -> None:
    code, out = sdclr(
        *("evaluate", run.folder, "--labels-per-class", "1,5", "--label-seeds", "2"),
        *("--protocol", "bcl"),
    )
    assert code == 0, out
    assert "Linear probe, protocol bcl" in out
    assert "5 labels a class (50 images): " in out
    assert "over 2 drawn sets" in out
    assert not run.evaluation_path("bcl").exists(), "few labels are in a file of their own"
    few_labels(run, labels_per_class=[1, 5], label_seeds=2)
    report([run.folder], {"html"}, progress=NoProgress())
    page = (run.folder / "report.html").read_text()
    assert '<section id="few-labels' in page
    assert "protocol bcl" in page
    assert "protocol cached" in page
    first = next(point for point in points(run) if point["value"] == 5)
    assert f"{100 * np.mean(first['accuracies']):.2f}" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label-seeds", "3"], "--label-seeds is for sets that are drawn"),
        (["--labels-per-class", "1,two"], "--labels-per-class takes whole numbers"),
        (["--labels-per-class", ""], "--labels-per-class takes whole numbers"),
        (["--label-share", "1%"], "--label-share takes fractions"),
        (["--labels-per-class", "1", "--probes", "knn"], "leave out --probes"),
        (["--labels-per-class", "1", "--against", "pixels"], "leave out --probes"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    run: Run, options: list[str], message: str
) -> None:
    found = CliRunner().invoke(cli.app, ["evaluate", str(run.folder), *options])
    assert isinstance(found.exception, SdclrError)
    assert message in str(found.exception)


def test_files_that_the_run_left_out_as_unusable_are_refused(photos: Run, tmp_path: Path) -> None:
    data = trained_images(photos, PretrainConfig.from_yaml(photos.config_path).data)
    assert data.split is not None
    without = replace(data.split, train=data.split.train[1:], long_tail=data.split.long_tail[1:])
    np.save(tmp_path / "all.npy", np.arange(len(data.train)))
    with pytest.raises(DataError, match=r"names cat/0\.png, which the run has left out"):
        label_sets(
            LabelSetRequest(file=tmp_path / "all.npy"), replace(data, split=without), "raise"
        )


def test_the_result_can_be_read_as_json(run: Run) -> None:
    code, out = sdclr(
        "evaluate", run.folder, "--labels-per-class", "2", "--label-seeds", "1", "--json"
    )
    assert code == 0
    assert json.loads(out.splitlines()[-1])["points"] == points(run)


def test_points_in_another_precision_do_not_stand_beside_one_another(
    run: Run, tmp_path: Path
) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    copy = Run(tmp_path / "run")
    (copy.folder / FEW_LABELS_FILE).unlink(missing_ok=True)
    few_labels(copy, labels_per_class=[1], label_seeds=2)
    few_labels(copy, labels_per_class=[2], label_seeds=2)
    assert [one["value"] for one in points(copy)] == [1, 2]
    few_labels(copy, labels_per_class=[3], label_seeds=2, settings={"precision": "bf16"})
    assert [one["value"] for one in points(copy)] == [3]
    assert copy.read_json(FEW_LABELS_FILE)["features_in"] == "bf16"
