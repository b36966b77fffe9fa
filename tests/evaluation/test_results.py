"""An evaluation is typed, keeps its file's form, and has the groups of the data set it measured."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from imagenet_stand_in import make_imagenet
from sdclr import Evaluation, balancedness, evaluate, pretrain, recipe
from sdclr.errors import ConfigError, DataError, MissingInputError

ACCURACIES = [0.9, 0.8, 0.7, 0.5, 0.2, 0.1]
COUNTS = [900, 500, 200, 150, 30, 8]
"""By thresholds 4, 1 and 1 classes are many, medium and few; by thirds 2, 2 and 2."""


def content(**changes: Any) -> dict[str, Any]:
    """A file of the first version: no heading, no settings, no tested_on."""
    probe = {
        "per_class_accuracy": ACCURACIES,
        "num_test": [10, 10, 10, 10, 10, 50],
        "seconds": 1.5,
        "detail": "C = 1",
    }
    made = {
        "protocol": "cached",
        "dataset": "imagenet100",
        "group_convention": "thresholds",
        "train_counts": COUNTS,
        "class_names": list("abcdef"),
        "split": {"number": 1, "fingerprint": "00"},
        "chance": 1 / 6,
        "probes": {"linear": probe, "knn": probe | {"per_class_accuracy": [0.5] * 6}},
    }
    return made | changes


def saved(folder: Path, **changes: Any) -> Path:
    path = folder / "cached.json"
    path.write_text(json.dumps(content(**changes)))
    return path


def test_groups_are_those_of_the_data_set_that_was_measured(tmp_path: Path) -> None:
    evaluation = Evaluation.load(saved(tmp_path))
    found = evaluation.balancedness("linear")
    assert found == balancedness(ACCURACIES, COUNTS, "thresholds")
    assert found.few == 0.1, "by thirds it would be 0.15"
    assert evaluation.grouped_by("thirds").balancedness("linear").few == pytest.approx(0.15)
    assert evaluation.group_convention == "thresholds", "the evaluation itself stays as it is"


def test_no_convention_is_taken_for_granted() -> None:
    assert (
        inspect.signature(balancedness).parameters["convention"].default is inspect.Parameter.empty
    )
    with pytest.raises(TypeError, match="convention"):
        balancedness(ACCURACIES, COUNTS)  # type: ignore[call-arg]


def test_an_imagenet_run_is_grouped_by_imagenets_thresholds(tmp_path: Path) -> None:
    """As the README shows it: nothing is handed on by the user."""
    made = make_imagenet(tmp_path, 7, train_per_class=6)
    where = {"data.path": str(made.root), "data.splits_dir": str(made.splits_dir)}
    small = {"views.size": 32, "backbone.width": 2, "epochs": 1, "batch_size": 8}
    run = pretrain(recipe("imagenet100_lt_simclr").with_values(where | small), tmp_path / "run")
    found = evaluate(run, probes=["knn"]).balancedness()
    assert math.isnan(found.many), "no class has more than 100 images; by thirds some would be many"
    assert not math.isnan(found.few)


def test_a_file_is_read_and_written_as_it_was(tmp_path: Path) -> None:
    path = saved(tmp_path, later_field={"x": 1})
    evaluation = Evaluation.load(path)
    evaluation.save(tmp_path / "again" / "cached.json")
    again = json.loads((tmp_path / "again" / "cached.json").read_text())
    summaries = [again["probes"][name].pop("summary") for name in ("linear", "knn")]
    assert again == json.loads(path.read_text()), (
        "further fields included, and none that was not there"
    )
    assert summaries[0]["few"] == 0.1
    assert (
        Evaluation.load(tmp_path / "again" / "cached.json").probes.keys()
        == evaluation.probes.keys()
    )


def test_a_file_without_its_protocol_is_named_by_the_file(tmp_path: Path) -> None:
    made = content()
    del made["protocol"]
    (tmp_path / "sdclr.json").write_text(json.dumps(made))
    assert Evaluation.load(tmp_path / "sdclr.json").protocol == "sdclr"


def test_plain_accuracy_counts_images_and_all_counts_classes(tmp_path: Path) -> None:
    evaluation = Evaluation.load(saved(tmp_path))
    images = [10, 10, 10, 10, 10, 50]
    plain = sum(a * n for a, n in zip(ACCURACIES, images, strict=True)) / 100
    assert evaluation.probe("linear").accuracy == pytest.approx(plain)
    assert evaluation.balancedness("linear").all == pytest.approx(sum(ACCURACIES) / 6)


def test_classes_that_were_not_tested_count_in_no_mean(tmp_path: Path) -> None:
    probe = content()["probes"]["linear"]
    some = probe | {
        "per_class_accuracy": [1.0, None, None, None, None, 0.0],
        "num_test": [30, 0, 0, 0, 0, 10],
    }
    evaluation = Evaluation.load(
        saved(tmp_path, probes={"linear": some, "old": some | {"num_test": None}})
    )
    assert evaluation.probe("linear").accuracy == 0.75
    assert evaluation.probe("old").accuracy is None
    assert evaluation.to_dict()["probes"]["linear"]["summary"]["medium"] is None


def test_a_probe_need_not_be_named_where_there_is_one(tmp_path: Path) -> None:
    evaluation = Evaluation.load(saved(tmp_path))
    with pytest.raises(ConfigError, match="name the probe; it has linear, knn"):
        evaluation.balancedness()
    with pytest.raises(ConfigError, match="it has no probe 'few_shot'; it has linear, knn"):
        evaluation.balancedness("few_shot")
    one = Evaluation.load(saved(tmp_path, probes={"knn": content()["probes"]["knn"]}))
    assert one.balancedness() == one.balancedness("knn")


def test_what_was_measured_cannot_be_changed(tmp_path: Path) -> None:
    evaluation = Evaluation.load(saved(tmp_path))
    with pytest.raises(ValidationError, match="frozen"):
        evaluation.group_convention = "thirds"
    with pytest.raises(ValidationError, match="frozen"):
        evaluation.probe("knn").detail = "better"


def test_damage_is_named_and_a_damaged_probe_left_out_with_a_warning(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"none\.json does not exist"):
        Evaluation.load(tmp_path / "none.json")
    with pytest.raises(DataError, match=r"cached\.json is damaged: group_convention must be"):
        Evaluation.load(saved(tmp_path, group_convention="halves"))
    (tmp_path / "cached.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        Evaluation.load(tmp_path / "cached.json")
    good = content()["probes"]["knn"]
    with pytest.warns(UserWarning, match="num_test has 2 entries for 6 classes"):
        evaluation = Evaluation.load(
            saved(tmp_path, probes={"knn": good, "linear": good | {"num_test": [1, 2]}})
        )
    assert list(evaluation.probes) == ["knn"]


@pytest.mark.parametrize(
    "module",
    [
        "evaluation.results",
        "evaluation.probes",
        "evaluation.balancedness",
        "mean_std",
        "outside",
        "presentation.report",
    ],
)
def test_the_examples_in_the_docstrings_are_true(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"sdclr.{module}"))
    assert found.attempted
    assert not found.failed
