"""Each score equals a slow, obvious loop, an authority's own code, or the authors' numbers."""

from __future__ import annotations

import doctest
import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import LocalOutlierFactor

from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.rarity import (
    Evidence,
    clusters,
    density,
    merged,
    nearest,
    nearest_in,
    training_signals,
    unit_rows,
)
from sdclr.evaluation.rarity import neighbours as search
from sdclr.evaluation.rarity.table import SCORES
from sdclr.image_records import moving_average
from sdclr.methods import hardest_mass as hardest_mass_module
from sdclr.methods.hardest_mass import hardest_mass
from watched_stages import WatchedStages

GOLDEN = Path(__file__).parents[2] / "golden"
PARTS = (
    "preparation neighbours density clusters training_signals order duplicates junk evidence scoring "
    "table alike wanted quality"
)


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    x = torch.randn(70, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[3] = x[2]  # a copy
    x[10:16] = x[9] + 1e-4 * x[10:16]  # a burst
    return x


def slow_neighbours(
    rows: np.ndarray, groups: list[int]
) -> tuple[list[list[float]], list[list[int]]]:
    distances, indices = [], []
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if groups[i] != groups[j]]
        found = sorted((math.dist(rows[i], rows[j]), j) for j in others)
        distances.append([d for d, _ in found])
        indices.append([j for _, j in found])
    return distances, indices


@pytest.mark.parametrize("part", PARTS.split())
def test_the_examples_give_what_they_show(part: str) -> None:
    found = doctest.testmod(importlib.import_module(f"sdclr.evaluation.rarity.{part}"))
    assert found.failed == 0
    assert found.attempted > 0


@pytest.mark.parametrize("blocks", [(1024, 8192), (16, 13)], ids=["one block", "many blocks"])
@pytest.mark.parametrize("grouped", [False, True])
def test_neighbours_equal_a_loop(
    features: torch.Tensor, grouped: bool, blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "QUERY_ROWS", blocks[0])
    monkeypatch.setattr(search, "BANK_ROWS", blocks[1])
    groups = [i // 6 if grouped else i for i in range(len(features))]
    k = 60
    found = nearest(features, k, groups=torch.tensor(groups) if grouped else None)
    distances, indices = slow_neighbours(features.numpy(), groups)
    for i in range(len(features)):
        np.testing.assert_allclose(found.distances[i], distances[i][:k], atol=1e-12)
        assert found.indices[i].tolist() == indices[i][:k]


def test_neighbours_far_from_the_origin_keep_their_digits() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(
        nearest(x + 1e6, 5).distances, nearest(x, 5).distances, rtol=1e-7, atol=1e-7
    )


def test_neighbours_in_two_banks_merge_to_those_in_both(features: torch.Tensor) -> None:
    bank, queries = features[:60], features[60:]
    later = nearest_in(bank[30:], queries, 7)
    both = merged(nearest_in(bank[:30], queries, 7), later._replace(indices=later.indices + 30))
    whole = nearest_in(bank, queries, 7)
    assert torch.equal(both.indices, whole.indices)
    torch.testing.assert_close(both.distances, whole.distances)


@pytest.mark.parametrize("k", [0, 70])
def test_a_k_that_images_have_not_that_many_neighbours_for_is_refused(
    features: torch.Tensor, k: int
) -> None:
    with pytest.raises(ConfigError, match="k must be 1 to 69"):
        nearest(features, k)


def test_knn_scores_equal_loops(features: torch.Tensor) -> None:
    rows = unit_rows(features).numpy()
    distances, _ = slow_neighbours(rows, list(range(len(rows))))
    evidence = Evidence(features)
    for name, k in (("knn_1", 1), ("knn_20", 20), ("knn_50", 50), ("knn_200", 69)):
        slow = [sum(row[:k]) / k for row in distances]
        np.testing.assert_allclose(SCORES[name].score(evidence), slow, atol=1e-9)


def test_fiftyone_and_cleanlab_equal_their_formulas_on_cosine_distances(
    features: torch.Tensor,
) -> None:
    fiftyone, cleanlab = [], []
    for i, row in enumerate(features.numpy()):
        cosine = []
        for j, other in enumerate(features.numpy()):
            if i != j:
                cosine.append(1 - row @ other / (np.linalg.norm(row) * np.linalg.norm(other)))
        cosine.sort()
        fiftyone.append((0.6 * cosine[0] + 0.3 * cosine[1] + 0.1 * cosine[2]) / 3)
        cleanlab.append(sum(cosine[:10]) / 10)
    evidence = Evidence(features)
    np.testing.assert_allclose(
        SCORES["fiftyone"].score(evidence), np.array(fiftyone) / max(fiftyone), atol=1e-9
    )
    np.testing.assert_allclose(SCORES["cleanlab"].score(evidence), cleanlab, atol=1e-9)


def test_lof_is_that_of_scikit_learn(features: torch.Tensor) -> None:
    distinct = torch.cat([features[:3], features[4:]])
    theirs = LocalOutlierFactor(n_neighbors=20).fit(distinct.numpy()).negative_outlier_factor_
    ours = density.local_outlier_factor(nearest(distinct, 20), 20)
    np.testing.assert_allclose(ours, -theirs, rtol=1e-9)


def test_mahalanobis_is_that_of_scikit_learn(features: torch.Tensor) -> None:
    rows = unit_rows(features).numpy()
    # of the covariance over N, not N - 1
    squares = EmpiricalCovariance().fit(rows).mahalanobis(rows)
    n = len(rows)
    np.testing.assert_allclose(
        clusters.mahalanobis(features), np.sqrt(squares * (n - 1) / n), rtol=1e-6
    )


def test_cluster_scores_equal_loops(features: torch.Tensor) -> None:
    found = clusters.k_means(features, 6)
    labels = found.labels.tolist()
    for i, cluster in enumerate(labels):
        members = [features[j].numpy() for j in range(len(labels)) if labels[j] == cluster]
        centre = np.mean(members, axis=0)
        assert clusters.cluster_size(found)[i] == -len(members)
        assert clusters.centre_distance(features, found)[i] == pytest.approx(
            math.dist(features[i], centre), abs=1e-6
        )


def test_k_centre_equals_a_loop_and_its_beginning_does_not_depend_on_the_count(
    features: torch.Tensor,
) -> None:
    rows = features.numpy()
    taken, centres = [], [rows.mean(axis=0)]
    while len(taken) < len(rows):
        left = [i for i in range(len(rows)) if i not in taken]
        reach = {i: min(math.dist(rows[i], c) for c in centres) for i in left}
        best = max(left, key=lambda i: (round(reach[i], 12), -i))
        taken.append(best)
        centres.append(rows[best])
    score = clusters.k_centre(features)
    assert score.argsort(descending=True, stable=True)[:60].tolist() == taken[:60]
    assert (
        clusters.k_centre(features, 20).argsort(descending=True, stable=True)[:20].tolist()
        == taken[:20]
    )


def test_one_image_of_each_cluster_comes_before_the_second_of_any(features: torch.Tensor) -> None:
    found = clusters.k_means(features, 6)
    order = clusters.typiclust(found, -features[:, 0]).argsort(descending=True, stable=True)
    first = found.labels[order[:6]]
    assert sorted(first.tolist()) == list(range(6))
    sizes = found.sizes[first].tolist()
    assert sizes == sorted(sizes, reverse=True)
    for image in order[:6].tolist():
        members = (found.labels == found.labels[image]).nonzero().flatten()
        assert features[image, 0] == features[members, 0].min(), "the most typical one"


def test_colt_is_the_authors() -> None:
    golden = np.load(GOLDEN / "colt.npz")
    for k, name in ((10, "tailness_k10"), (3, "tailness_k3")):
        num_images = golden[name].shape[1]
        masses = torch.full((3, num_images), torch.nan, dtype=torch.float64)
        for epoch in range(3):
            z = torch.from_numpy(golden["z"][epoch])  # rows interleaved
            masses[epoch, golden["index"][epoch]] = hardest_mass(z[0::2], z[1::2], 0.2, k)
            so_far = moving_average(masses[: epoch + 1], 0.97)
            np.testing.assert_allclose(so_far, golden[name][epoch], atol=1e-12)


def test_masses_are_the_same_in_tiles_and_of_some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    z_a, z_b = torch.randn(2, 23, 5, dtype=torch.float64)
    whole = hardest_mass(z_a, z_b)
    monkeypatch.setattr(hardest_mass_module, "TILE", 7)
    torch.testing.assert_close(hardest_mass(z_a, z_b), whole, rtol=1e-12, atol=0)
    some = hardest_mass(z_a, z_b, rows=range(3, 20))
    torch.testing.assert_close(some, whole[3:20], rtol=1e-12, atol=0)


def test_an_average_skips_the_epochs_that_left_an_image_out() -> None:
    nan = math.nan
    losses = torch.tensor([[nan, 1.0], [2.0, nan], [4.0, 3.0]])
    assert training_signals.loss_average(losses, 0.5).tolist() == [3.0, 2.0]
    with pytest.raises(DataError, match="1 of 2 images have no record"):
        training_signals.loss(torch.tensor([[nan, 1.0]]))


def test_disagreements_equal_loops() -> None:
    g = torch.Generator().manual_seed(5)
    z, c = torch.randn(3, 8, 4, generator=g), torch.randn(3, 8, 4, generator=g)
    loss, pruned = torch.randn(3, 8, generator=g), torch.randn(3, 8, generator=g)
    cosine = training_signals.disagreement_by_cosine(z, c)
    by_loss = training_signals.disagreement_by_loss(loss, pruned)
    by_rank = training_signals.disagreement_by_rank(loss, pruned)
    for i in range(8):
        cosines, losses, ranks = [], [], []
        for v in range(3):
            a, b = z[v, i].double(), c[v, i].double()
            cosines.append(float(a @ b / (a.norm() * b.norm())))
            losses.append(float(pruned[v, i].double() - loss[v, i].double()))
            places = [int((values[v] < values[v, i]).sum()) for values in (pruned, loss)]
            ranks.append((places[0] - places[1]) / 8)
        assert float(cosine[i]) == pytest.approx(1 - np.mean(cosines), abs=1e-9)
        assert float(by_loss[i]) == pytest.approx(np.mean(losses), abs=1e-9)
        assert float(by_rank[i]) == pytest.approx(np.mean(ranks), abs=1e-9)


def test_evidence_with_groups_finds_what_a_new_search_finds(features: torch.Tensor) -> None:
    groups = torch.arange(70)
    groups[10:16] = 9
    alone = Evidence(features)
    alone.neighbours(3)
    grouped, afresh = alone.with_groups(groups), Evidence(features, groups)
    assert "unit" in grouped._neighbours, "nothing is searched again"
    for k in (1, 20, 50):
        assert torch.equal(grouped.neighbours(k).indices, afresh.neighbours(k).indices)
        assert torch.equal(grouped.neighbours(k).distances, afresh.neighbours(k).distances)
    few = Evidence(features, searched=12)
    few.neighbours(3)
    assert torch.equal(
        few.with_groups(groups).neighbours(20).indices, afresh.neighbours(20).indices
    )


def test_a_search_says_how_far_it_is() -> None:
    seen = WatchedStages()
    x = torch.randn(2500, 3, generator=torch.Generator().manual_seed(0))
    Evidence(x, watch=seen).neighbours(2)
    assert list(seen.totals) == ["neighbours"]
    assert seen.totals["neighbours"] == sum(seen.done["neighbours"]) == 2500
    assert len(seen.done["neighbours"]) > 1
