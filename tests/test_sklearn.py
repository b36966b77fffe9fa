"""Embedder is a transformer as scikit-learn means it, and gives the features that `sdclr embed` writes."""

from __future__ import annotations

import doctest
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

import sdclr
from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.backbones.weights import save_backbone
from sdclr.data import DataConfig
from sdclr.errors import ConfigError, DataError, MissingInputError, Preempted
from sdclr.sklearn import Embedder

TINY = {"backbone.name": "resnet10", "backbone.width": 2, "views.size": 8, "epochs": 1}
Pixels = npt.NDArray[np.uint8]


def tiny_backbone(path: Path) -> Path:
    torch.manual_seed(0)
    config = BackboneConfig(name="resnet10", width=2)
    save_backbone(path, build_backbone(config), config.to_dict(), {"image_size": 8})
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone(tmp_path_factory.mktemp("source") / "b.safetensors")


@pytest.fixture(scope="module")
def pictures() -> Pixels:
    """Two kinds that a probe can tell apart: bright and dark."""
    pixels = np.random.default_rng(0).integers(0, 120, (40, 20, 24, 3), dtype=np.uint8)
    pixels[::2] += 130
    return pixels


# ---- scikit-learn's own checks

PLACE: dict[str, str] = {}
"""Where this session has the network of the checks; they are collected before there is one."""


@pytest.fixture(scope="module", autouse=True)
def network_of_the_checks(source: Path) -> None:
    PLACE["source"] = str(source)


class OnRows(Embedder):
    """The checks give rows of numbers [N, P]: each becomes a picture whose lines are that row, as 8-bit greys."""

    def fit(self, X: Any, y: object = None) -> Any:
        pictures = _pictures(validate_data(self, X))
        given, self.source = self.source, PLACE["source"]
        try:
            return super().fit(pictures, y)
        finally:
            self.source = given

    def transform(self, X: Any) -> Any:
        check_is_fitted(self)
        return super().transform(_pictures(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True  # else scikit-learn has no check for it at all
        tags.no_validation = False
        return tags


def _pictures(rows: npt.NDArray[Any]) -> list[Pixels]:
    levels = (128 + 40 * np.tanh(rows)).astype(np.uint8)
    return [np.repeat(row[None], 8, axis=0) for row in levels]


CANNOT_APPLY: dict[str, str] = {}
"""Check -> why it cannot apply. None today, for pictures made of rows."""


@parametrize_with_checks(
    [OnRows(source="of this session", device="cpu")],
    expected_failed_checks=lambda estimator: CANNOT_APPLY,
)
def test_scikit_learns_checks_hold(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


class _Table:
    """As one of pandas answers."""

    iloc, columns = None, ("path",)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: object) -> list[str]:
        return ["a.png"]


def test_of_a_table_the_column_of_paths_is_asked_for(source: Path) -> None:
    with pytest.raises(DataError, match=r"give the column of paths, as in list\(table\['path'\]\)"):
        Embedder(source, device="cpu").fit(_Table())  # type: ignore[arg-type]


def test_as_it_is_it_takes_no_rows_of_numbers(source: Path) -> None:
    with pytest.raises(DataError, match=r"\[3, 8\] of float64 is not an array of images"):
        Embedder(source, device="cpu").fit(np.zeros((3, 8)))


# ---- what it gives


def test_a_path_a_pil_image_and_an_array_give_the_same_features(
    source: Path, pictures: Pixels, tmp_path: Path
) -> None:
    images = [Image.fromarray(one) for one in pictures[:5]]
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    embedder = Embedder(source, device="cpu", batch_size=2).fit(paths)
    features = embedder.transform(paths)
    assert features.shape == (5, 16)
    assert features.dtype == np.float32
    for others in (images, pictures[:5], list(pictures[:5]), [str(path) for path in paths]):
        assert np.array_equal(embedder.transform(others), features)
    grey = embedder.transform(np.array([np.array(image.convert("L")) for image in images]))
    assert np.array_equal(grey, embedder.transform([image.convert("L") for image in images]))


def test_its_features_are_those_of_embed(source: Path, pictures: Pixels, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, one in enumerate(pictures[:6]):
        Image.fromarray(one).save(tmp_path / "photos" / f"{number}.png")
    data = DataConfig.parse({"name": "images", "path": str(tmp_path / "photos"), "subset": "all"})
    out = sdclr.embed(source, data, tmp_path / "f.npz", device="cpu")
    paths = sorted((tmp_path / "photos").iterdir())
    found = Embedder(str(source), device="cpu").fit(paths).transform(paths)
    np.testing.assert_allclose(found, np.load(out)["features"], atol=1e-5)


def test_it_stands_in_a_pipeline_and_in_a_cross_validation(source: Path, pictures: Pixels) -> None:
    labels = np.arange(len(pictures)) % 2
    pipeline = make_pipeline(Embedder(source, device="cpu"), LogisticRegression(C=100.0))
    assert cross_val_score(pipeline, list(pictures), labels, cv=2).mean() > 0.9
    again = pickle.loads(pickle.dumps(pipeline.fit(pictures, labels)))
    assert np.array_equal(again.predict(pictures), pipeline.predict(pictures))
    assert list(pipeline[:-1].get_feature_names_out()[:2]) == ["embedder0", "embedder1"]


def test_fit_without_a_source_pre_trains_on_the_images(
    pictures: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    embedder = Embedder(pretrain=TINY, device="cpu")
    first = embedder.fit(pictures).transform(pictures[:4])
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    more = clone(embedder).set_params(pretrain=TINY | {"seed": 11}).fit(pictures)
    assert not np.array_equal(more.transform(pictures[:4]), first), "it has learned"


def test_a_run_folder_that_is_named_stays_and_can_be_the_source(
    pictures: Pixels, tmp_path: Path
) -> None:
    paths = [tmp_path / f"photo {number} 1.png" for number in range(len(pictures))]
    for one, path in zip(pictures, paths, strict=True):
        Image.fromarray(one).save(path)
    out = tmp_path / "run"
    embedder = Embedder(pretrain=TINY, device="cpu", out=out).fit(paths)
    run = sdclr.Run(out)
    assert run.read_status()["state"] == "done"
    again = Embedder(run, device="cpu").fit(paths)  # type: ignore[arg-type]
    assert np.array_equal(again.transform(paths), embedder.transform(paths))


def test_files_are_read_as_the_pre_training_read_them(pictures: Pixels, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(len(pictures))]
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    for one, path in zip(pictures, paths, strict=True):
        Image.fromarray(one).save(path, exif=on_its_side)
    upright = [Image.fromarray(one) for one in pictures[:4]]
    as_it_lies = Embedder(pretrain=TINY | {"data.exif_rotation": False}, device="cpu").fit(paths)
    assert np.array_equal(as_it_lies.transform(paths[:4]), as_it_lies.transform(upright))
    turned = Embedder(pretrain=TINY, device="cpu").fit(paths)
    assert not np.array_equal(turned.transform(paths[:4]), turned.transform(upright))


def test_the_example_of_its_docstring_runs() -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(Embedder, "Embedder", globs={})
    said: list[str] = []
    doctest.DocTestRunner().run(test, out=said.append)
    assert not said, "".join(said)


# ---- what it refuses


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ("photos", "list of paths"),
        ([], "no images"),
        ([np.zeros((4, 4, 3))], r"image 0 .*float64; give 8-bit"),
        ([np.zeros((4, 4, 4), np.uint8)], r"image 0 .*\[4, 4, 4\]"),
        ([Image.new("RGB", (4, 4)), 7], "image 1 .*is a int"),
        (["nothing.png"], "no file nothing.png"),
        ([__file__], "image 0 .*test_sklearn.py"),
        (np.zeros((40, 20, 3), np.uint8), r"\[40, 20, 3\] is one image .*give \[image\]"),
        (np.zeros((40, 20, 4), np.uint8), r"\[40, 20, 4\] is one image .*give \[image\]"),
        (np.zeros((40, 20), np.uint8), r"\[40, 20\] of uint8 .*of one image \[H, W\] give"),
        ([np.zeros((0, 0, 3), np.uint8)], r"image 0 .*no pixels: it is an array \[0, 0, 3\]"),
        ([Image.new("L", (0, 4))], "image 0 .*no pixels: its size is 0 x 4"),
        ({"a.png", "b.png"}, "list of paths.*got set"),
    ],
)
def test_what_is_no_image_is_named_by_its_position(source: Path, images: Any, words: str) -> None:
    embedder = Embedder(source, device="cpu").fit([np.zeros((4, 4), np.uint8)])
    with pytest.raises(sdclr.SdclrError, match=words):
        embedder.transform(images)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"pretrain": ["epochs=1"]}, r"pretrain of Embedder must be a mapping .*\['epochs=1'\]"),
        ({"pretrain": {1: 2}}, "pretrain of Embedder must name its settings by strings.*got 1"),
        ({"source": 5}, "source of Embedder must be a path, got 5"),
        ({"out": 5}, "out of Embedder must be a path, got 5"),
    ],
)
def test_a_parameter_of_another_type_is_named_by_fit(
    wrong: dict[str, Any], words: str, pictures: Pixels
) -> None:
    with pytest.raises(ConfigError, match=words):
        Embedder(**wrong).fit(pictures)


def test_paths_may_stand_in_an_array(source: Path, pictures: Pixels, tmp_path: Path) -> None:
    paths = files_of(pictures[:3], tmp_path)
    embedder = Embedder(source, device="cpu").fit(np.array(paths))
    assert np.array_equal(embedder.transform(np.array(paths)), embedder.transform(pictures[:3]))


def test_images_to_train_on_are_named_by_their_positions(pictures: Pixels, tmp_path: Path) -> None:
    embedder = Embedder(pretrain=TINY, device="cpu")
    with pytest.raises(DataError, match="fit was given 5 images; at least 32 are needed"):
        embedder.fit(pictures[:5])
    paths = files_of(pictures, tmp_path)
    twice = f"{tmp_path}/./{Path(paths[3]).name}"
    with pytest.raises(DataError, match=r"image 40 is image 3 again: .*3\.png"):
        embedder.fit([*paths, twice])
    with pytest.raises(MissingInputError, match=r"image 40: there is no file nothing\.png"):
        embedder.fit([*paths, "nothing.png"])


# ---- OUT-images


def files_of(pictures: Pixels, folder: Path) -> list[str]:
    paths = [folder / f"{number}.png" for number in range(len(pictures))]
    for one, path in zip(pictures, paths, strict=True):
        Image.fromarray(one).save(path)
    return [str(path) for path in paths]


def contents_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_refused_fit_leaves_the_images_of_the_run(pictures: Pixels, tmp_path: Path) -> None:
    embedder = Embedder(pretrain=TINY, device="cpu", out=tmp_path / "run")
    features = embedder.fit(pictures).transform(pictures)
    before = contents_of(tmp_path / "run-images")
    (tmp_path / "photos").mkdir()
    for others in (pictures[::-1], pictures[:32], files_of(pictures, tmp_path / "photos")):
        with pytest.raises(ConfigError):
            embedder.fit(others)
        assert contents_of(tmp_path / "run-images") == before
    with pytest.raises(ConfigError, match=r"image 0 is not the one that .*run-images has held"):
        embedder.fit(pictures[::-1])
    assert np.array_equal(embedder.fit(pictures).transform(pictures), features)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run", "run-images"]


def test_a_fit_that_is_refused_before_it_begins_leaves_nothing(
    pictures: Pixels, tmp_path: Path
) -> None:
    for wrong in ({"epochs": 0}, {"backbone.nam": "resnet10"}):
        with pytest.raises(ConfigError):
            Embedder(pretrain=TINY | wrong, device="cpu", out=tmp_path / "run").fit(pictures)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="image 40 cannot be used"):
        Embedder(pretrain=TINY, device="cpu", out=tmp_path / "run").fit([*pictures, 7])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_somebody_elses_images_stays_as_it_is(pictures: Pixels, tmp_path: Path) -> None:
    (tmp_path / "run-images").mkdir()
    files_of(pictures, tmp_path / "run-images")
    before = contents_of(tmp_path)
    with pytest.raises(ConfigError, match=r"run-images exists and holds something else"):
        Embedder(pretrain=TINY, device="cpu", out=tmp_path / "run").fit(pictures)
    assert contents_of(tmp_path) == before


def test_a_fit_goes_on_with_an_interrupted_run_of_the_same_images(
    pictures: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TINY | {"epochs": 3}
    whole = Embedder(pretrain=settings, device="cpu", out=tmp_path / "whole").fit(pictures)

    def stopped(*words: Any, **more: Any) -> Any:
        return sdclr.pretrain(*words, **more, observers=[_Stop()])

    embedder = Embedder(pretrain=settings, device="cpu", out=tmp_path / "run")
    monkeypatch.setattr("sdclr.sklearn.pretrain", stopped)
    with pytest.raises(Preempted):
        embedder.fit(pictures)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="image 0 is not the one"):
        embedder.fit(pictures[::-1])
    features = embedder.fit(pictures).transform(pictures[:3])
    assert np.array_equal(features, whole.transform(pictures[:3]))


class _Stop(sdclr.Observer):
    """A signal after the first epoch; the run stops at the end of the next one."""

    def on_epoch(self, done: Any) -> None:
        if done.epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_parameters_that_do_not_go_together_are_refused(source: Path, pictures: Pixels) -> None:
    for wrong in ({"batch_size": 0}, {"image_size": 1.5}, {"pretrain": TINY}, {"out": "run"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Embedder(source, **wrong).fit(pictures)  # type: ignore[arg-type]
    with pytest.raises(NotFittedError):
        Embedder(source).transform(pictures)
