"""The verdict: hand-computed intervals, scipy's, and the rule at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sdclr.evaluation.verdict import Effect, cells_needed, half_width, paired_effect


def effect(low: float, high: float) -> Effect:
    return Effect((low + high) / 2, low, high, 1.0, 5, 1)


def test_the_interval_of_five_differences_is_the_one_computed_by_hand() -> None:
    differences = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = paired_effect(
        dict.fromkeys(range(5), 10.0), dict(enumerate(np.array(differences) + 10))
    )
    # t(0.975, 4) = 2.776445; std = sqrt(2.5) = 1.581139; half-width = 2.776445 * 1.581139 / sqrt(5)
    assert found.mean == pytest.approx(3.0)
    assert found.std == pytest.approx(1.5811388)
    assert (found.low, found.high) == pytest.approx((3 - 1.9632432, 3 + 1.9632432), abs=1e-6)


@pytest.mark.parametrize("num_comparisons", [1, 2, 6])
def test_the_interval_is_scipys_at_the_corrected_level(num_comparisons: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 15))
    found = paired_effect(dict(enumerate(a)), dict(enumerate(b)), num_comparisons)
    test = stats.ttest_rel(b, a)
    expected = test.confidence_interval(1 - 0.05 / num_comparisons)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.confidence == pytest.approx(1 - 0.05 / num_comparisons)


def test_the_verdict_at_zero_agrees_with_scipys_bonferroni_corrected_p_value() -> None:
    rng = np.random.default_rng(1)
    seen = set()
    for shift in np.linspace(-2, 2, 21):
        a = rng.normal(size=8)
        b = a + shift + rng.normal(size=8)
        found = paired_effect(dict(enumerate(a)), dict(enumerate(b)), 3)
        significant = 3 * stats.ttest_rel(b, a).pvalue < 0.05
        assert (found.low > 0 or found.high < 0) == significant
        seen.add(significant)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.01, 9.0, "helps"),
        (1.0, 9.0, "open"),  # it must lie above d, not at it
        (0.99, 9.0, "open"),
        (-9.0, -1.01, "harms"),
        (-9.0, -1.0, "open"),
        (-1.0, 1.0, "no effect worth having"),
        (-0.2, 0.9, "no effect worth having"),
        (0.2, 0.9, "no effect worth having"),  # not zero, and not worth having
        (-1.01, 0.5, "open"),
        (-5.0, 5.0, "open"),
        (math.nan, math.nan, "open"),
    ],
)
def test_the_rule_is_that_of_the_file(low: float, high: float, verdict: str) -> None:
    assert effect(low, high).verdict(1.0) == verdict


def test_only_cells_that_both_arms_have_are_paired() -> None:
    found = paired_effect({1: 1.0, 2: 2.0, 3: 0.0}, {2: 5.0, 3: 1.0, 4: 100.0})
    assert (found.n, found.mean) == (2, 2.0)


@pytest.mark.parametrize("pairs", [0, 1])
def test_fewer_than_two_pairs_give_no_interval_and_no_promise(pairs: int) -> None:
    values = dict.fromkeys(range(pairs), 1.0)
    found = paired_effect(values, values)
    assert (found.n, found.verdict(1.0), found.cells_needed(1.0)) == (pairs, "open", None)
    assert math.isnan(found.low)


@pytest.mark.parametrize("num_comparisons", [1, 6])
@pytest.mark.parametrize("std", [0.0, 0.3, 1.0, 4.0])
def test_the_cells_needed_are_the_fewest_with_that_half_width(
    std: float, num_comparisons: int
) -> None:
    needed = cells_needed(std, 1.0, num_comparisons)
    slow = next(n for n in range(2, 10_000) if half_width(std, n, num_comparisons) <= 1.0)
    assert needed == slow


def test_five_splits_narrow_a_spread_of_one_point_to_1_24_points() -> None:
    assert half_width(1.0, 5) == pytest.approx(1.24, abs=0.005)
    assert cells_needed(1.0, 1e-9) is None, "more than anybody could run"


@pytest.mark.parametrize("difference", [0.0, 3.7, 0.1, 5.1, -7.7777])
def test_differences_that_are_all_equal_are_open(difference: float) -> None:
    before = {1: 60.3, 2: 70.0, 3: 10.1}  # differences of which differ by their rounding
    found = paired_effect(before, {key: value + difference for key, value in before.items()})
    assert found.std == 0
    assert found.verdict(1.0) == "open"
    assert found.cells_needed(1.0) is None
