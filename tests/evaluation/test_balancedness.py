"""Groups, spreads and summaries against the numbers the authors' script prints, and scipy's paired interval."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdclr.errors import DataError
from sdclr.evaluation.balancedness import balancedness, class_groups
from sdclr.mean_std import MeanStd

CONVENTION = {"thirds": "thirds", "thresholds_100_20": "thresholds"}
NUM_TABLES = 5


@pytest.fixture(params=range(NUM_TABLES))
def table(request: pytest.FixtureRequest, golden: Path) -> dict[str, Any]:
    """One data set of the golden file: percentages, groups and summaries for each split."""
    tables = json.loads((golden / "summary_metrics.json").read_text())
    assert len(tables) == NUM_TABLES
    return tables[request.param]


def summaries(table: dict[str, Any]) -> list:
    return [
        balancedness([a / 100 for a in accuracy], counts, CONVENTION[table["mode"]])
        for accuracy, counts in zip(table["classwise_acc_percent"], table["counts"], strict=True)
    ]


def test_groups_are_the_authors(table: dict[str, Any]) -> None:
    for counts, expected in zip(table["counts"], table["groups"], strict=True):
        groups = class_groups(counts, CONVENTION[table["mode"]])
        assert list(groups) == ["many", "medium", "few"]
        for name, ids in groups.items():
            if isinstance(expected[name], int):
                assert len(ids) == expected[name]
            else:
                assert set(ids) == set(expected[name])


def test_every_summary_is_the_authors(table: dict[str, Any]) -> None:
    for number, ours in enumerate(summaries(table)):
        for name, field in (("all", "acc"), ("many", "many"), ("medium", "medium"), ("few", "few")):
            assert getattr(ours, name) * 100 == pytest.approx(table[field][number], abs=1e-9)
        assert ours.group_std == pytest.approx(table["group_std"][number], abs=1e-9)
        assert ours.class_std == pytest.approx(table["classwise_std"][number], abs=1e-9)
        assert ours.gap * 100 == pytest.approx(
            table["many"][number] - table["few"][number], abs=1e-9
        )
        assert ours.worst_class * 100 == pytest.approx(
            min(table["classwise_acc_percent"][number]), abs=1e-9
        )


def test_mean_and_std_over_splits_are_the_authors(table: dict[str, Any]) -> None:
    ours = summaries(table)
    fields = {"acc": "all", "major": "many", "moderate": "medium", "minor": "few"}
    fields |= {"variance": "class_std", "GroupBalancedness": "group_std"}
    for theirs, field in fields.items():
        summary = MeanStd.over([getattr(one, field) for one in ours])
        unit = 1 if field.endswith("std") else 100
        expected = table["reported_mean_std"][theirs]
        assert [summary.mean * unit, summary.std * unit] == pytest.approx(expected, abs=1e-9), (
            theirs
        )
        assert summary.n == len(ours)


@pytest.mark.parametrize(
    ("count", "group"),
    [(101, "many"), (100, "medium"), (20, "medium"), (19, "few"), (0, "few"), (5000, "many")],
)
def test_the_thresholds_themselves_belong_to_medium(count: int, group: str) -> None:
    groups = class_groups([500, 50, 5, count], "thresholds")
    assert [name for name, ids in groups.items() if 3 in ids] == [group]


@pytest.mark.parametrize(
    ("num_classes", "sizes"), [(10, (4, 3, 3)), (100, (34, 33, 33)), (3, (1, 1, 1)), (5, (3, 1, 1))]
)
def test_thirds_round_down_and_the_rest_are_many(num_classes: int, sizes: tuple[int, ...]) -> None:
    counts = np.random.default_rng(0).permutation(np.arange(1, num_classes + 1) * 10)
    groups = class_groups(counts.tolist(), "thirds")
    assert tuple(map(len, groups.values())) == sizes
    assert sorted(c for ids in groups.values() for c in ids) == list(range(num_classes))
    assert counts[groups["many"]].min() > counts[groups["medium"]].max()
    assert counts[groups["medium"]].min() > counts[groups["few"]].max()


def test_an_unknown_convention_is_refused() -> None:
    with pytest.raises(DataError, match="must be 'thirds' or 'thresholds', got 'quarters'"):
        class_groups([1, 2, 3], "quarters")  # type: ignore[arg-type]


def test_an_empty_group_is_nan_and_left_out_of_the_spread() -> None:
    ours = balancedness([0.9, 0.7, 0.3], [500, 200, 50], "thresholds")
    assert math.isnan(ours.few)
    assert math.isnan(ours.gap)
    assert ours.group_std == pytest.approx(0.25)
    assert ours.all == pytest.approx(1.9 / 3)


def test_a_perfectly_even_model_has_no_spread() -> None:
    ours = balancedness([0.6] * 9, list(range(1, 10)), "thirds")
    assert ours.group_std == pytest.approx(0, abs=1e-15)
    assert ours.class_std == pytest.approx(0, abs=1e-15)
    assert (ours.all, ours.worst_class) == pytest.approx((0.6, 0.6))


@pytest.mark.parametrize(
    ("accuracy", "counts", "message"),
    [
        (
            [51.2, 49.9, 96.5],
            [30, 20, 10],
            "fractions in .0, 1., got 49.9 .. 96.5. Divide percentages by 100",
        ),
        ([0.5, float("nan"), 0.5], [30, 20, 10], "give None for classes without test images"),
        ([0.5, -0.1, 0.5], [30, 20, 10], "fractions in .0, 1."),
        ([0.5, 0.5, 0.5], [30, 20], "got .3,. accuracies and 2 counts"),
        ([], [], "one accuracy and one training count for each class"),
        ([0.5, 0.5], [30, 20, 10], "one accuracy and one training count for each class"),
        ([[0.5, 0.5, 0.5]], [30, 20, 10], "one accuracy and one training count"),
        ({0: 0.5, 1: 0.5, 2: 0.1}, [30, 20, 10], "in the order of the classes, got a dict"),
        ({0.5, 0.1}, [30, 20], "in the order of the classes, got a set"),
        (iter([0.5, 0.1]), [30, 20], "in the order of the classes, got a list_iterator"),
        ([0.5, 0.5, 0.5], [30, float("nan"), 10], "training counts must be numbers of images"),
        ([0.5, 0.5, 0.5], [30, -1, 10], "training counts must be numbers of images"),
    ],
)
def test_accuracies_that_cannot_be_summarised_are_refused(
    accuracy: Any, counts: list, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        balancedness(accuracy, counts, "thirds")


def test_two_classes_are_many_and_few_and_one_class_is_many() -> None:
    two = balancedness([0.4, 0.9], [3, 70], "thirds")
    assert (two.all, two.many, two.few, two.gap) == (0.65, 0.9, 0.4, 0.5)
    assert np.isnan(two.medium)
    assert two.group_std == pytest.approx(0.25)
    one = balancedness([0.7], [5], "thirds")
    assert (one.all, one.many, one.class_std) == (0.7, 0.7, 0.0)
    assert np.isnan(one.few)
    assert np.isnan(one.group_std)


def test_a_class_that_was_not_tested_counts_in_no_mean() -> None:
    found = balancedness([0.9, None, 0.5, 0.3], [40, 30, 20, 10], "thirds")
    assert (found.all, found.many, found.few) == (pytest.approx(17 / 30), 0.9, 0.3)
    assert found.worst_class == 0.3
    with pytest.raises(DataError, match="at least one class"):
        balancedness([None, None], [2, 1], "thirds")
