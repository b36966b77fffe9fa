from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sdclr.errors import DataError, NonFiniteError
from sdclr.evaluation import representation
from sdclr.evaluation.representation import (
    effective_rank,
    nearest,
    view_distances,
    views_that_find_their_partner,
)


def test_the_examples_of_the_docstrings_run() -> None:
    assert doctest.testmod(representation).failed == 0


def test_effective_rank_counts_directions_of_equal_strength() -> None:
    basis = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(0))).Q
    for rank in (1, 3, 10):
        features = torch.cat([basis[:rank], -basis[:rank]])  # centred already
        assert effective_rank(features) == pytest.approx(rank, abs=1e-5)


def test_effective_rank_is_the_exponential_of_an_entropy() -> None:
    features = np.random.default_rng(0).normal(size=(30, 8)) * np.arange(1, 9)
    singular = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
    p = singular / singular.sum()
    expected = np.exp(-sum(one * np.log(one) for one in p))
    assert effective_rank(torch.from_numpy(features)) == pytest.approx(expected, abs=1e-5)


def test_effective_rank_does_not_see_a_constant_or_a_scale() -> None:
    features = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    assert effective_rank(7 * features + 100) == pytest.approx(effective_rank(features), abs=1e-3)


def test_a_collapse_has_rank_one() -> None:
    assert effective_rank(torch.ones(10, 4)) == 1.0


def test_features_that_are_not_finite_are_refused() -> None:
    features = torch.ones(4, 4)
    features[2, 1] = torch.nan
    with pytest.raises(NonFiniteError):
        effective_rank(features)
    with pytest.raises(NonFiniteError, match="view b of image 2"):
        view_distances(torch.ones(4, 4), features)


def test_view_distances_are_two_minus_two_cosines() -> None:
    a, b = torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(0))
    expected = 2 - 2 * F.cosine_similarity(a, b)
    assert torch.allclose(view_distances(a, b), expected, atol=1e-6)


def test_views_find_each_other_as_a_slow_loop_says() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(30, 6, generator=generator)
    b = a + 0.9 * torch.randn(30, 6, generator=generator)
    found = views_that_find_their_partner(a, b).tolist()
    for i in range(30):
        cosines = [float(F.cosine_similarity(a[i], b[j], dim=0)) for j in range(30)]
        assert found[i] == (max(range(30), key=cosines.__getitem__) == i)
    assert 0 < sum(found) < 30


def test_features_that_are_all_equal_find_nothing() -> None:
    assert not views_that_find_their_partner(torch.ones(5, 3), torch.ones(5, 3)).any()


def test_nearest_rows_leave_the_row_itself_out() -> None:
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, -0.1]])
    positions, similarities = nearest(features, torch.tensor([0, 2]), 2)
    assert positions.tolist() == [[1, 2], [1, 0]]
    assert similarities[0, 0].item() == pytest.approx(0.9 / (0.9**2 + 0.1**2) ** 0.5)
    assert nearest(features, torch.tensor([0]), 9)[0].shape == (1, 3), "no more than there are"


def test_views_of_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"one shape \[N, F\]"):
        view_distances(torch.ones(3, 2), torch.ones(2, 2))
