"""Weighted nearest neighbours against scikit-learn and against a slow obvious loop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.features import of_length_one
from sdclr.evaluation.knn import knn_predict


def clouds(num: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Overlapping classes of unequal size and features of unequal length: [num, 16], labels of 5 classes."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.4, num) - 1, 4)
    centres = np.random.default_rng(99).normal(size=(5, 16))
    features = (centres[labels] + rng.normal(size=(num, 16)) * 1.5) * rng.uniform(0.1, 10, (num, 1))
    return torch.from_numpy(features).float(), labels


BANK, BANK_LABELS = clouds(400, 1)
QUERIES, QUERY_LABELS = clouds(150, 2)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("k", [1, 10, 57, 400])
def test_predictions_are_sklearns(k: int, temperature: float) -> None:
    theirs = KNeighborsClassifier(
        k,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    )
    theirs.fit(BANK.double().numpy(), BANK_LABELS)
    ours = knn_predict(BANK, BANK_LABELS, QUERIES, k=k, temperature=temperature)
    assert ours.tolist() == theirs.predict(QUERIES.double().numpy()).tolist()
    assert 0.3 < (ours == QUERY_LABELS).mean() < 1, (
        "neither hopeless nor trivial: the test can tell"
    )


def test_predictions_are_a_slow_loops() -> None:
    predictions = []
    for query in QUERIES.double().tolist():
        similarities = []
        for features, label in zip(BANK.double().tolist(), BANK_LABELS.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(query, features, strict=True))
            similarities.append((dot / (math.hypot(*query) * math.hypot(*features)), label))
        votes = [0.0] * 5
        for similarity, label in sorted(similarities, reverse=True)[:10]:
            votes[label] += math.exp(similarity / 0.1)
        predictions.append(votes.index(max(votes)))
    assert knn_predict(BANK, BANK_LABELS, QUERIES).tolist() == predictions


def test_a_near_neighbour_outvotes_two_far_ones() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    labels = np.array([0, 1, 1])
    query = torch.tensor([[5.0, 0.1]])
    assert knn_predict(bank, labels, query, k=3, temperature=0.1).tolist() == [0]
    assert knn_predict(bank, labels, query, k=3, temperature=10.0).tolist() == [1]


def test_k_beyond_the_bank_means_the_whole_bank() -> None:
    everyone = knn_predict(BANK[:7], BANK_LABELS[:7], QUERIES, k=7)
    assert knn_predict(BANK[:7], BANK_LABELS[:7], QUERIES, k=200).tolist() == everyone.tolist()


@pytest.mark.parametrize("chunk", [1, 7, 149])
def test_the_chunk_size_does_not_matter(chunk: int) -> None:
    expected = knn_predict(BANK, BANK_LABELS, QUERIES)
    assert knn_predict(BANK, BANK_LABELS, QUERIES, chunk=chunk).tolist() == expected.tolist()


def test_half_and_double_precision_features_are_taken() -> None:
    expected = knn_predict(BANK, BANK_LABELS, QUERIES, k=5)
    assert (
        knn_predict(BANK.double(), BANK_LABELS, QUERIES.double(), k=5).tolist() == expected.tolist()
    )
    half = knn_predict(BANK.bfloat16(), BANK_LABELS, QUERIES.bfloat16(), k=5)
    assert (half == expected).mean() > 0.9


def test_a_small_temperature_is_the_nearest_neighbour_and_not_an_overflow() -> None:
    nearest = knn_predict(BANK, BANK_LABELS, QUERIES, k=1)
    sharp = knn_predict(BANK, BANK_LABELS, QUERIES, k=50, temperature=1e-4)
    assert (sharp == nearest).mean() > 0.97
    # each query is its own neighbour: exp(200)
    same = knn_predict(BANK, BANK_LABELS, BANK, k=50, temperature=0.005)
    assert same.tolist() == BANK_LABELS.tolist()


@pytest.mark.parametrize("k", [1, 10, 57])
def test_without_a_temperature_every_neighbour_has_one_vote_as_sklearns(k: int) -> None:
    unit = torch.nn.functional.normalize(BANK.double(), dim=1).numpy()
    theirs = KNeighborsClassifier(k, algorithm="brute").fit(unit, BANK_LABELS)
    queries = torch.nn.functional.normalize(QUERIES.double(), dim=1).numpy()
    ours = knn_predict(BANK, BANK_LABELS, QUERIES, k=k, temperature=None)
    assert ours.tolist() == theirs.predict(queries).tolist()


def test_the_lower_class_wins_a_tie_of_equal_votes() -> None:
    bank = torch.tensor([[1.0, 0.1], [1.0, 0.0], [1.0, 0.2], [1.0, 0.3]])
    labels = np.array([2, 1, 1, 2])
    found = knn_predict(bank, labels, torch.tensor([[1.0, 0.3]]), k=4, temperature=None)
    assert found.tolist() == [1]


@pytest.mark.parametrize("scale", [1e25, 1e38, 1e-20, 1e-40])
def test_rows_of_any_size_have_the_neighbours_of_their_directions(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.rand(n, 5, generator=generator).double() - 0.5 for n in (30, 7))
    labels = np.arange(30) % 3
    expected = knn_predict(bank, labels, queries)
    scaled = [
        (scale * x).to(torch.float64 if scale < 1e-30 else torch.float32) for x in (bank, queries)
    ]
    assert knn_predict(scaled[0], labels, scaled[1]).tolist() == expected.tolist()
    assert knn_predict(bank * 1e100, labels, queries * 1e-100).tolist() == expected.tolist()


def test_rows_of_length_one_are_torchs_own_bits() -> None:
    rows = (
        torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-3, 3, 100)[:, None]
    )
    assert torch.equal(of_length_one(rows), torch.nn.functional.normalize(rows, dim=1))
    assert torch.equal(
        of_length_one(rows.half()), torch.nn.functional.normalize(rows.half().float(), dim=1)
    )


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"k": 0}, ConfigError),
        ({"k": -1}, ConfigError),
        ({"temperature": -1.0}, ConfigError),
        ({"temperature": 0.0}, ConfigError),
    ],
)
def test_settings_of_neighbours_that_cannot_be_meant_are_refused(
    settings: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="kNN needs k of at least 1"):
        knn_predict(torch.randn(5, 3), np.arange(5), torch.randn(2, 3), **settings)
    with pytest.raises(DataError, match="features of one size, got 3 in the bank and 4"):
        knn_predict(torch.randn(5, 3), np.arange(5), torch.randn(2, 4))
