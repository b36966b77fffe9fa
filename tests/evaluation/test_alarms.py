"""Alarms: each cause at its threshold, causes before consequences, and words that say what to do."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from sdclr.evaluation import alarms as module
from sdclr.evaluation.alarms import CAUSES, THRESHOLDS, Findings, alarms

HEALTHY = {
    "blank_views": 0.01,
    "identical_views": 0.01,
    "crop_likeness": 0.5,
    "temperature": 0.2,
    "top1": 0.2,
    "spread": 0.5,
    "weight_change": 0.1,
    "masks_changed": 0.01,
    "pruned": 0.9,
    "knn": 0.5,
    "knn_deviations": 9.0,
}
LAYERS: dict[str, list[str]] = {"frozen": [], "constant": [], "dead_norms": []}
UNTRAINED = {"spread": 0.3, "knn_deviations": 5.0}


def causes(
    now: dict[str, float] | None = None,
    layers: dict[str, list[str]] | None = None,
    untrained: dict[str, float] | None = None,
    first: dict[str, float] | None = None,
) -> list[str]:
    found = Findings(
        HEALTHY | (now or {}),
        LAYERS | (layers or {}),
        UNTRAINED if untrained is None else untrained,
        HEALTHY if first is None else first,
    )
    return [alarm.cause for alarm in alarms(found)]


def test_the_examples_of_the_docstrings_run() -> None:
    assert doctest.testmod(module).failed == 0


def test_healthy_numbers_raise_nothing() -> None:
    assert causes() == causes(first={}) == causes(untrained={}) == []
    assert alarms(Findings({})) == []


@pytest.mark.parametrize(
    ("cause", "below", "above"),
    [
        ("blank_images", {"blank_views": 0.3}, {"blank_views": 0.31}),
        ("one_crop", {"crop_likeness": 0.95}, {"crop_likeness": 0.951}),
        ("identical_views", {"identical_views": 0.3}, {"identical_views": 0.31}),
        ("temperature", {"temperature": 5.0}, {"temperature": 5.1}),
        ("temperature", {"temperature": 0.02}, {"temperature": 0.019}),
        ("learning_rate", {"weight_change": 120.0}, {"weight_change": 121.0}),
        ("stale_masks", {"masks_changed": 1e-6}, {"masks_changed": 0.0}),
        ("collapsed", {"spread": 0.021, "top1": 0.002}, {"spread": 0.02, "top1": 0.002}),
        ("collapsed", {"spread": 0.01, "top1": 0.006}, {"spread": 0.01, "top1": 0.0058}),
    ],
)
def test_a_cause_is_named_beyond_its_threshold_and_not_at_it(
    cause: str, below: dict[str, float], above: dict[str, float]
) -> None:
    assert causes(below) == []
    assert causes(above) == [cause]


def test_a_network_that_hardly_moves_is_judged_in_its_first_epoch_alone() -> None:
    assert causes({"weight_change": 1e-5}, first={}) == ["learning_rate"]
    assert causes({"weight_change": 1e-5}) == []  # the end of a schedule
    assert (
        causes({"weight_change": 1e-5}, first={}, untrained={}) == []
    )  # where it began is not known


def test_masks_may_rest_where_weights_do_or_nothing_is_pruned() -> None:
    still = {"masks_changed": 0.0}
    assert causes(still, first={}) == []
    assert causes(still | {"weight_change": 0.009}) == []
    assert causes(still | {"pruned": 0.0}) == []


def test_layers_are_named() -> None:
    names = [f"backbone.layer{number}" for number in range(5)]
    (alarm,) = alarms(Findings(HEALTHY, LAYERS | {"frozen": names}))
    assert alarm.cause == "frozen_layer"
    assert "5 layers (backbone.layer0, backbone.layer1, backbone.layer2 and 2 more)" in alarm.words
    assert causes(layers={"constant": names, "frozen": names}) == ["constant_weights"]
    assert causes({"weight_change": 0.0}, layers={"frozen": names}) == []


def test_labels_are_doubted_where_features_and_pixels_guess_although_features_are_good() -> None:
    guess = {"knn_deviations": 1.0, "pixel_knn_deviations": 0.5}
    before = {"knn_deviations": 1.5}
    assert causes(guess, untrained=before) == causes(guess, untrained={}) == ["labels"]
    assert causes(guess) == []  # the untrained network knew them: training has lost it
    assert causes(guess | {"pixel_knn_deviations": 4.0}, untrained=before) == []  # hard, but right
    assert causes(guess | {"top1": 0.005}, untrained=before) == []
    assert causes({"knn_deviations": 1.0}, untrained=before) == []  # nothing is known of pixels


def test_consequences_are_not_named_beside_their_cause() -> None:
    collapsed = {"spread": 0.0, "top1": 0.002}
    black = {"blank_views": 1.0, "identical_views": 1.0, "weight_change": 190.0}
    assert causes(collapsed | black) == ["blank_images"]
    assert causes(collapsed | {"temperature": 100.0}) == ["temperature"]
    assert causes(collapsed, layers={"dead_norms": ["x"]}) == ["dead_norms"]


def test_explanations_name_earlier_causes_and_every_threshold_is_used() -> None:
    names = list(CAUSES)
    for name, cause in CAUSES.items():
        assert all(names.index(earlier) < names.index(name) for earlier in cause.explained_by)
    assert module.__file__ is not None
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r'_limit\(\s*"(\w+)"', source)) == set(THRESHOLDS)


def test_a_temperature_that_hardly_changes_the_loss_any_more_is_no_measured_number() -> None:
    (found,) = alarms(Findings({"temperature": 15_800.0}))
    assert "at a temperature above 1000," in found.words
    (found,) = alarms(Findings({"temperature": 7.0}))
    assert "at temperature 7," in found.words
