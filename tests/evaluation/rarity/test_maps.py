"""The map of a collection: principal components, or UMAP where it is installed."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch

from sdclr.errors import ConfigError
from sdclr.evaluation.rarity import maps
from sdclr.evaluation.rarity.maps import checked_map, map_of


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """A umap that halves the first two numbers and remembers what it was asked for."""
    asked: list[dict[str, object]] = []

    class UMAP:
        def __init__(self, **settings: object) -> None:
            asked.append(settings)

        def fit_transform(self, rows: np.ndarray) -> np.ndarray:
            return rows[:, :2] / 2

    module = types.ModuleType("umap")
    module.UMAP = UMAP  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", module)
    monkeypatch.setattr(maps, "_is_installed", lambda: True)
    return asked


def test_without_umap_the_map_is_the_first_two_components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "_is_installed", lambda: False)
    rows = torch.rand(40, 5, dtype=torch.float64)
    found = map_of(rows)
    np.testing.assert_array_equal(found.place, rows[:, :2].float().numpy())
    assert "principal components" in found.words
    assert map_of(rows[:, :1]).place[:, 1].tolist() == [0.0] * 40
    with pytest.raises(ConfigError, match=r'pip install "sdclr\[map\]"'):
        map_of(rows, "umap")


def test_umap_is_asked_for_by_name_and_repeats_itself(stand_in: list[dict[str, object]]) -> None:
    rows = torch.rand(40, 5)
    found = map_of(rows, "umap")
    np.testing.assert_array_equal(found.place, rows[:, :2].numpy() / 2)
    assert "UMAP" in found.words
    assert stand_in == [{"n_neighbors": 15, "random_state": 0, "n_jobs": 1}]
    assert "UMAP" not in map_of(rows).words, "whatever is installed"
    map_of(rows[:4], "umap")
    assert stand_in[-1]["n_neighbors"] == 3


def test_a_map_of_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--map must be pca, umap, got 'tsne'"):
        checked_map("tsne")


@pytest.mark.tools
def test_the_real_umap_repeats_itself_and_keeps_neighbours_together() -> None:
    pytest.importorskip("umap", reason='pip install "sdclr[map]"')
    draw = torch.Generator().manual_seed(0)
    kinds = torch.arange(90) % 3
    rows = torch.randn(90, 8, generator=draw) + 20 * torch.nn.functional.one_hot(kinds, 8)
    place = map_of(rows, "umap").place
    np.testing.assert_array_equal(map_of(rows, "umap").place, place)
    apart = np.linalg.norm(place[:, None] - place[None], axis=2) + np.diag([np.inf] * 90)
    assert (kinds[apart.argmin(1)] == kinds).all()
