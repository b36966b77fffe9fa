"""The approximate search finds what the exact one finds where it looks everywhere, and says what it misses else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.rarity import Evidence, cells, nearest
from sdclr.evaluation.rarity.cells import nearest_in_cells
from sdclr.evaluation.rarity.neighbours import Neighbours
from watched_stages import WatchedStages

ALL = 10**6
"""More cells than there are."""


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    """Kinds of many and of few rows, a copy and a burst of six."""
    generator = torch.Generator().manual_seed(1)
    kind = (torch.rand(700, generator=generator).square() * 12).long()
    x = torch.randn(12, 16, generator=generator)[kind] * 2
    x += torch.randn(700, 16, generator=generator)
    x[3] = x[2]
    x[10:16] = x[9] + 1e-3 * torch.randn(6, 16, generator=generator)
    return x


@pytest.fixture
def _few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cells, "QUERY_ROWS", 300)
    monkeypatch.setattr(cells, "LARGEST_TILE", 30)
    return


def assert_equal(a: Neighbours, b: Neighbours) -> None:
    torch.testing.assert_close(a.distances, b.distances, rtol=1e-9, atol=1e-9)
    assert torch.equal(a.indices, b.indices)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.usefixtures("_few_rows_at_once")
def test_a_search_of_all_cells_is_exact(features: torch.Tensor, grouped: bool) -> None:
    groups = torch.arange(700) // 6 if grouped else None
    found, how = nearest_in_cells(features, 20, groups=groups, searched_cells=ALL)
    assert_equal(found, nearest(features, 20, groups=groups))
    assert (how.recall, how.recall_of_nearest) == (1.0, 1.0)
    assert how.searched_cells == how.num_cells > 20


def test_what_is_found_in_few_cells_is_a_loop_over_these_cells(features: torch.Tensor) -> None:
    own = torch.arange(len(features))
    made = cells._Cells(features, own)
    found, how = nearest_in_cells(features, 5, searched_cells=6)
    whole = made._whole(features).double()
    to_centres = torch.cdist(whole, made.centres.double())
    for row in range(0, 700, 23):
        searched = to_centres[row].argsort()[:6]
        others = [j for j in range(700) if j != row and made.cell[j] in searched]
        distances = [float((features[row].double() - features[j].double()).norm()) for j in others]
        expected = sorted(zip(distances, others, strict=True))[:5]
        np.testing.assert_allclose(found.distances[row], [d for d, _ in expected], rtol=1e-9)
        assert found.indices[row].tolist() == [j for _, j in expected]
    assert how.recall < 1


def test_every_row_is_in_the_cell_of_the_nearest_centre(features: torch.Tensor) -> None:
    made = cells._Cells(features, torch.arange(len(features)))
    distances = torch.cdist(made._whole(features).double(), made.centres.double())
    chosen = distances.gather(1, made.cell.unsqueeze(1))[:, 0]
    torch.testing.assert_close(chosen, distances.amin(dim=1))
    for cell in range(len(made.centres)):
        rows = made.row[made.starts[cell] : made.ends[cell]]
        assert (made.cell[rows] == cell).all()
        assert len(rows) > 0
    assert sorted(made.row.tolist()) == list(range(700))


def test_cells_are_made_of_whole_numbers_that_float32_adds_exactly() -> None:
    x = torch.randn(300, 40, generator=torch.Generator().manual_seed(3)) + 5
    x[7] *= 100  # an outlier must not make all others equal
    made = cells._Cells(x, torch.arange(300))
    whole = made._whole(x)
    assert torch.equal(whole, whole.round())
    assert float(whole.norm(dim=1).max()) <= cells.SPAN
    assert float(made.centres.norm(dim=1).max()) <= cells.SPAN
    products = made.centres.square().sum(dim=1) - 2 * whole @ made.centres.T
    exact = made.centres.double().square().sum(dim=1) - 2 * whole.double() @ made.centres.double().T
    assert torch.equal(products.double(), exact)
    assert len(made.centres) > 10


def test_the_same_bits_on_every_call_and_with_any_number_of_threads(
    features: torch.Tensor,
) -> None:
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3, 3):
            torch.set_num_threads(threads)
            found.append(nearest_in_cells(features, 12))
    finally:
        torch.set_num_threads(before)
    for other, how in found[1:]:
        assert torch.equal(other.distances, found[0][0].distances)
        assert torch.equal(other.indices, found[0][0].indices)
        assert how == found[0][1]


def test_copies_and_bursts_are_found_in_few_cells(features: torch.Tensor) -> None:
    found, _ = nearest_in_cells(features, 6, searched_cells=2)
    assert found.indices[2, 0] == 3
    assert found.distances[2, 0] == 0
    for row in range(9, 16):
        assert set(found.indices[row].tolist()) == set(range(9, 16)) - {row}


def test_a_group_as_large_as_its_cells_is_searched_farther(features: torch.Tensor) -> None:
    groups = torch.arange(700)
    groups[:650] = 0  # of the 50 others hardly any is in the cells of a row
    found, _ = nearest_in_cells(features, 50, groups=groups, searched_cells=2)
    assert found.distances.isfinite().all()
    assert_equal(
        Neighbours(found.distances[:650], found.indices[:650]),
        Neighbours(*(part[:650] for part in nearest(features, 50, groups=groups))),
    )


def test_the_estimated_recall_is_near_the_true_one(
    features: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "NUM_QUERIES", 300)
    found, how = nearest_in_cells(features, 20, searched_cells=3)
    exact = nearest(features, 20)
    pairs = zip(found.indices.tolist(), exact.indices.tolist(), strict=True)
    recall = np.mean([len(set(a) & set(b)) / 20 for a, b in pairs])
    first = (found.distances[:, 0] <= exact.distances[:, 0] * 1.0000001).double().mean()
    assert 0.3 < recall < 0.95
    assert how.recall == pytest.approx(recall, abs=0.05)
    assert how.recall_of_nearest == pytest.approx(float(first), abs=0.05)


def test_as_many_cells_are_searched_as_the_wanted_recall_takes(
    features: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "LARGEST_SHARE", 1.0)
    _, how = nearest_in_cells(features, 20)
    assert 0.97 <= how.recall < 1
    assert how.searched_cells < how.num_cells
    monkeypatch.setattr(cells, "LARGEST_SHARE", 0.1)
    _, capped = nearest_in_cells(features, 20)
    assert capped.searched_cells == round(0.1 * capped.num_cells)
    assert capped.recall < 0.97


def test_equal_rows_make_one_cell_and_no_error() -> None:
    x = torch.zeros(50, 3)
    x[40:] = 1
    found, how = nearest_in_cells(x, 4)
    assert (found.distances == 0).all()
    assert (x[found.indices] == x.unsqueeze(1)).all()
    assert how.num_cells == 2


@pytest.mark.parametrize("k", [0, 700])
def test_a_k_that_no_image_has_is_refused_as_by_the_exact_search(
    features: torch.Tensor, k: int
) -> None:
    with pytest.raises(ConfigError, match="k must be 1 to 699"):
        nearest_in_cells(features, k)
    with pytest.raises(DataError, match="one group covers all"):
        nearest_in_cells(features, 3, groups=torch.zeros(700, dtype=torch.int64))


def test_every_stage_says_how_far_it_is_and_ends_at_its_total(features: torch.Tensor) -> None:
    seen = WatchedStages()
    Evidence(features, exact_up_to=699, watch=seen).neighbours(3)
    assert list(seen.totals) == ["cells", "neighbours"]
    assert seen.totals["neighbours"] == sum(seen.done["neighbours"]) == 700
    assert seen.totals["cells"] == sum(seen.done["cells"]) == 700 * (1 + cells.ROUNDS)
    assert len(seen.done["cells"]) > cells.ROUNDS, "while k-means works"


def test_up_to_the_limit_evidence_is_exact_and_above_it_says_what_was_missed(
    features: torch.Tensor,
) -> None:
    exact = Evidence(features, exact_up_to=700)
    usual, large = Evidence(features), Evidence(features, exact_up_to=699)
    for name in ("unit", "directions", "white"):
        assert torch.equal(exact.neighbours(5, name).distances, usual.neighbours(5, name).distances)
        far = large.neighbours(5, name).distances
        assert (far >= exact.neighbours(5, name).distances - 1e-6).all()
    assert exact.approximations == {}
    assert set(large.approximations) == {"unit", "directions", "white"}
    assert large.unit.dtype == torch.float32
    torch.testing.assert_close(large.unit.double(), exact.unit, rtol=0, atol=1e-7)


def test_evidence_with_groups_remembers_how_its_neighbours_were_found(
    features: torch.Tensor,
) -> None:
    alone = Evidence(features, exact_up_to=10)
    alone.neighbours(80)
    grouped = alone.with_groups(torch.arange(700) // 3)
    assert grouped.approximations == alone.approximations
    own = grouped.groups[grouped.neighbours(20).indices]  # type: ignore[index]
    assert (own != grouped.groups.unsqueeze(1)).all()  # type: ignore[union-attr]
