from __future__ import annotations

import pytest
import torch

from sdclr.errors import DataError
from sdclr.evaluation.rarity import Evidence, nearest
from sdclr.evaluation.rarity.cells import nearest_in_cells
from sdclr.evaluation.rarity.neighbours import most_neighbours, without_own_group

N, K = 120, 6


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(N, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def two_kinds() -> torch.Tensor:
    """Tracks of twelve, and sets of copies that lie in several tracks: of three or alone."""
    tracks = torch.arange(N) // 12
    copies = torch.arange(N)
    copies[[0, 40, 80]] = 0
    copies[[1, 13, 14]] = 1
    return torch.stack([tracks, copies], dim=1)


def slow_nearest(x: torch.Tensor, groups: torch.Tensor, k: int) -> list[list[int]]:
    found = []
    for row in range(len(x)):
        others = [
            other
            for other in range(len(x))
            if other != row and not (groups[other] == groups[row]).any()
        ]
        others.sort(key=lambda other: (float((x[other] - x[row]).double().norm()), other))
        found.append(others[:k])
    return found


def test_images_that_share_a_group_of_either_kind_are_no_neighbours(
    features: torch.Tensor, two_kinds: torch.Tensor
) -> None:
    expected = slow_nearest(features, two_kinds, K)
    assert nearest(features, K, groups=two_kinds).indices.tolist() == expected
    found, _ = nearest_in_cells(features, K, groups=two_kinds, searched_cells=1_000)
    assert found.indices.tolist() == expected
    left = without_own_group(nearest(features, N - 1), two_kinds)
    assert left.indices[:, :K].tolist() == expected
    evidence = Evidence(features)
    evidence.neighbours(K)
    assert evidence.with_groups(two_kinds).neighbours(K).indices.tolist() == slow_nearest(
        evidence.unit, two_kinds, K
    )


def test_two_kinds_do_not_join_groups(features: torch.Tensor, two_kinds: torch.Tensor) -> None:
    indices = nearest(features, 80, groups=two_kinds).indices
    seen = {(row, other) for row in range(2, 12) for other in indices[row].tolist()}
    assert any(40 <= other < 48 for _, other in seen), "image 0's copies join no tracks"


def test_as_many_neighbours_as_the_image_with_the_fewest_has(two_kinds: torch.Tensor) -> None:
    slow = [int((two_kinds == own).any(dim=1).sum()) for own in two_kinds]
    assert most_neighbours(N, two_kinds) == N - max(slow)
    with pytest.raises(DataError, match="one group covers all 4"):
        most_neighbours(4, torch.tensor([[0, 9], [0, 9], [1, 9], [1, 9]]))
