"""Every row of SOURCES keeps its promise, a data set that a user has added included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sdclr
from sdclr import PretrainConfig, pretrain, recipe, resume
from sdclr.data import SOURCES, DataConfig, LabelledImages, ViewsConfig, build_data
from sdclr.data.collections.image_arrays import ImageArrays
from sdclr.data.table import named_source
from sdclr.errors import ConfigError, DataError
from sdclr.outside import load

OURS = tuple(SOURCES)


def stripes(path: Path | None, classes: int = 3, width: int = 8) -> dict[str, Any]:
    """Stripes of three colours, in memory."""
    generator = np.random.default_rng(0 if path is None else len(path.name))
    counts = {"train": 60, "test": 10}
    data: dict[str, Any] = {}
    for part, count in counts.items():
        labels = np.repeat(np.arange(classes), count)
        images = generator.integers(0, 60, (len(labels), width, width, 3), dtype=np.uint8)
        images[np.arange(len(labels)), :, :, labels % 3] += 150
        data |= {f"{part}_images": images, f"{part}_labels": labels}
    return data


def typed(path: Path | None) -> LabelledImages:
    """The same as images of the package."""
    found = stripes(path)
    images = torch.from_numpy(found["train_images"]).permute(0, 3, 1, 2).contiguous()
    return LabelledImages(ImageArrays(images, found["train_labels"]), None, ["r", "g", "b"])


def no_images(path: Path | None) -> list[int]:
    """No images at all."""
    return [1, 2, 3]


@pytest.fixture(autouse=True)
def own_entries() -> Iterator[None]:
    with SOURCES.temporarily():
        sdclr.register_source(stripes)
        yield


def tiny(**data: Any) -> PretrainConfig:
    few = ["backbone.width=2", "views.size=8", "batch_size=30", "epochs=1"]
    values = {"data": {"name": "stripes", "imbalance_ratio": 4.0, **data}}
    return recipe("digits_sdclr").with_overrides(few).with_values(values)


@pytest.mark.parametrize("name", [*OURS, "stripes"])
def test_a_row_has_a_reader_and_words(name: str) -> None:
    row = SOURCES[name]
    assert callable(load(row.reader))
    assert row.summary.endswith(".")


@pytest.mark.parametrize("name", [*OURS, "stripes"])
def test_settings_survive_yaml_and_those_without_effect_are_refused(
    name: str, tmp_path: Path
) -> None:
    config = recipe("digits_simclr").with_values({"data": {"name": name}})
    (tmp_path / "x.yaml").write_text(config.to_yaml())
    assert PretrainConfig.from_yaml(tmp_path / "x.yaml") == config
    row = SOURCES[name]
    refused = {
        "path": not row.takes_path,
        "splits_dir": not row.authors_lists,
        "store": not row.on_disk,
    }
    for field, is_refused in refused.items():
        if is_refused:
            with pytest.raises(ConfigError, match=r"^data: "):
                config.with_values({f"data.{field}": "x"})
    if row.own is None:
        with pytest.raises(ConfigError, match="options are for data sets that you have registered"):
            config.with_values({"data.options": {"classes": 3}})


def test_images_from_outside_are_split_viewed_and_evaluated(tmp_path: Path) -> None:
    config = tiny(options={"classes": 3})
    data = build_data(config.data)
    assert data.split is not None
    counts = np.bincount(data.train.labels[data.split.subset("long_tail")])  # type: ignore[index]
    assert counts.max() == 4 * counts.min(), "a long tail is drawn from it"
    batch = next(
        iter(data.train.views([torch.arange(5)], ViewsConfig(size=8).spec(), seed=0, epoch=0))
    )
    assert batch.a.shape == (5, 3, 8, 8)
    run = pretrain(config, tmp_path / "x")
    assert run.read_json("split.json")["dataset"] == "stripes"
    evaluation = sdclr.evaluate(run, probes=["knn"])
    assert len(evaluation.probe("knn").per_class_accuracy) == 3
    assert run.read_json("environment.json")["outside"]["data"].endswith(":stripes")


def test_a_run_asks_for_a_data_set_that_is_not_known(tmp_path: Path) -> None:
    run = pretrain(tiny(), tmp_path / "x")
    del SOURCES._rows["stripes"]
    with pytest.raises(
        ConfigError, match=r"the data stripes, which is not part of sdclr.*--use .*stripes"
    ):
        resume(run.folder)
    with pytest.raises(ConfigError, match="there is no data set 'stripes'"):
        DataConfig.parse({"name": "stripes"})


def test_images_of_the_package_are_taken_as_they_are() -> None:
    sdclr.register_source(typed, conventions="imagenet")
    data = build_data(DataConfig(name="typed", imbalance_ratio=4))
    assert (data.class_names, data.conventions) == (["r", "g", "b"], "imagenet")


def test_what_is_no_data_set_is_refused() -> None:
    sdclr.register_source(no_images)
    with pytest.raises(
        DataError,
        match=r":no_images must return sdclr\.data\.LabelledImages or a mapping of arrays",
    ):
        build_data(DataConfig(name="no_images"))
    with pytest.raises(ConfigError, match="it is not a function"):
        sdclr.register_source(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="there is a data set 'digits' already"):
        sdclr.register_source(stripes, "digits")
    assert named_source("digits") == "digits"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_images": None}, "needs an array train_images"),
        ({"train_labels": np.zeros(3, np.int64)}, "one class id"),
        ({"train_images": np.zeros((4, 8, 8, 3), np.float32)}, "images must be uint8"),
    ],
)
def test_arrays_that_make_no_sense_are_named_with_their_reader(
    change: dict[str, Any], words: str
) -> None:
    def broken(path: Path | None) -> dict[str, Any]:
        """Stripes with a fault."""
        return {
            name: array for name, array in (stripes(path) | change).items() if array is not None
        }

    sdclr.register_source(broken, "broken")
    with pytest.raises(DataError, match=words) as error:
        build_data(DataConfig(name="broken"))
    assert "broken" in str(error.value)
