"""Modes at every radius, intervals from answers: against slow loops and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdclr.errors import DataError
from sdclr.evaluation.rarity import modes
from sdclr.evaluation.rarity.modes import (
    Answer,
    Between,
    Covering,
    collection_modes,
    effective_modes,
    gini,
    questions,
    radius_by_answers,
)


def blobs(sizes: list[int], spread: float = 0.05, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = rng.normal(size=(len(sizes), 16))
    rows = centres[labels] + spread * rng.normal(size=(len(labels), 16))
    return torch.from_numpy(rows).float(), labels


def test_every_image_lies_within_the_radius_of_its_mode() -> None:
    features, _ = blobs([40, 20, 8, 3], spread=0.4)
    covering = Covering(features)
    for radius in (0.3, 0.6, 1.0, 1.5, 3.0):
        centres = covering.rows[covering.centres[: covering.number(radius)]]
        distances = torch.cdist(covering.rows, centres)
        assert distances.min(dim=1).values.max() <= radius + 1e-9
        assert torch.equal(covering.modes(radius), distances.argmin(dim=1))
        assert covering.sizes(radius).sum() == len(features)
    assert covering.number(3.0) == 1
    assert (np.diff(covering.radii[1:]) <= 0).all()


def test_answers_find_well_separated_kinds_and_the_rare_ones_among_them() -> None:
    features, labels = blobs([900, 450, 150, 60, 9, 8])
    covering = Covering(features)
    asked = questions(covering, 50)
    answers = [Answer(a, b, bool(labels[a] == labels[b])) for a, b, _ in asked]
    at_random = [one for one, (_, _, kind) in zip(answers, asked, strict=True) if kind == "random"]
    found = collection_modes(covering, answers, at_random)
    assert found.number.low <= 6 <= found.number.high
    assert found.rare.low <= 2 <= found.rare.high
    assert found.effective is not None
    truth = 1 / np.square(np.bincount(labels) / len(labels)).sum()
    assert found.effective.low <= truth <= found.effective.high


def test_without_answers_the_interval_is_wide_and_says_so() -> None:
    found = collection_modes(Covering(torch.randn(300, 8, generator=torch.manual_seed(0))))
    assert not found.number.is_known
    assert found.number.low <= found.number.estimate <= found.number.high
    assert found.effective is None


def test_the_interval_of_effective_modes_holds_the_truth_as_often_as_it_says() -> None:
    rng, shares = np.random.default_rng(0), np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    truth, held = 1 / np.square(shares).sum(), 0
    for _ in range(300):
        same = int(rng.binomial(25, np.square(shares).sum()))
        found = effective_modes(same, 25)
        held += found.low <= truth <= found.high
    assert held >= 0.95 * 300 - 10


def test_what_is_known_is_an_interval_of_a_factor_of_four() -> None:
    assert Between(10, 6, 24).is_known
    assert not Between(10, 6, 25).is_known
    assert not Between(10, 6, float("inf")).is_known
    assert Between(0, 0, 0).is_known, "none at all is known, too"


def test_more_modes_than_were_looked_for_are_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "MOST_MODES", 40)
    rows = torch.randn(300, 32, generator=torch.manual_seed(0))
    found = collection_modes(Covering(rows, averaged=0))
    assert found.number.high == found.rare.high == float("inf")
    assert not found.number.is_known


def test_gini_is_the_mean_difference_over_twice_the_mean() -> None:
    sizes = np.array([1, 3, 3, 10, 40])
    slow = np.abs(sizes[:, None] - sizes).mean() / (2 * sizes.mean())
    assert gini(sizes) == pytest.approx(slow)


def test_the_radius_parts_what_answers_part_and_needs_both_kinds() -> None:
    features, labels = blobs([50, 50])
    covering = Covering(features)
    pairs = [(i, (i * 7 + 1) % 100) for i in range(40)]
    answers = [Answer(a, b, bool(labels[a] == labels[b])) for a, b in pairs]
    radius = radius_by_answers(covering, answers)
    distances = covering.distance(pairs)
    same = np.array([answer.same for answer in answers])
    assert distances[same].max() < radius.estimate < distances[~same].min()
    with pytest.raises(DataError, match="at least 10 answers"):
        radius_by_answers(covering, answers[:5])
    with pytest.raises(DataError, match="some of them same"):
        radius_by_answers(covering, [Answer(a, b, True) for a, b in pairs])


def test_questions_are_half_random_half_near_and_the_same_for_the_same_seed() -> None:
    features, _ = blobs([100, 100])
    covering = Covering(features)
    asked = questions(covering, 50)
    assert asked == questions(covering, 50)
    assert asked != questions(covering, 50, seed=1)
    kinds = [kind for _, _, kind in asked]
    assert abs(kinds.count("random") - kinds.count("near")) <= 2
    assert all(a != b for a, b, _ in asked)
