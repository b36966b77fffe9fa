"""Cluster-balanced sampling: weights by a count of one's own, from own or given features, and across a stop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import method_conformance as conformance
from sdclr import pretrain
from sdclr.any_progress import NoProgress
from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.methods.cluster_balanced import balanced_weights
from sdclr.methods.config import ClusterBalancedConfig


def blobs(*sizes_and_places: tuple[int, float]) -> torch.Tensor:
    """Tight groups of points on a line."""
    random = torch.Generator().manual_seed(0)
    parts = [
        place + 0.01 * torch.rand(size, 1, generator=random) for size, place in sizes_and_places
    ]
    return torch.cat(parts)


def test_clusters_get_the_same_and_their_images_share_it() -> None:
    weights = balanced_weights(blobs((30, 0.0), (6, 5.0), (4, 9.0)), (3,), key=1)
    assert weights.mean().item() == pytest.approx(1)
    of_cluster = [part.sum().item() for part in weights.split([30, 6, 4])]
    assert of_cluster == pytest.approx([40 / 3] * 3)
    for part in weights.split([30, 6, 4]):
        assert len(part.unique()) == 1


def test_a_coarser_level_shares_before_a_finer_one() -> None:
    """Three groups on the left, one on the right: the right one gets one half, not a quarter."""
    features = blobs((8, 0.0), (4, 1.0), (2, 2.0), (2, 90.0))
    weights = balanced_weights(features, (4, 2), key=1)
    shares = [part.sum().item() / 16 for part in weights.split([8, 4, 2, 2])]
    assert shares == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_points_that_coincide_make_fewer_clusters_without_a_warning() -> None:
    features = torch.tensor([[0.0]] * 6 + [[1.0]] * 2)
    weights = balanced_weights(features, (5, 2), key=0)
    assert weights.tolist() == pytest.approx([8 / 12] * 6 + [2.0] * 2)
    assert balanced_weights(torch.zeros(3, 2), (2,), key=0).tolist() == [1, 1, 1]


def test_the_same_features_and_key_give_the_same_weights() -> None:
    features = torch.rand(200, 5, generator=torch.Generator().manual_seed(1))
    first, again, other = (balanced_weights(features, (20, 4), key) for key in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_image_comes_once_until_clusters_are_found(tmp_path: Path) -> None:
    overrides = ("method.refresh_every_epochs=2", "method.base.name=sdclr")
    run = pretrain(conformance.run_config("cluster_balanced", *overrides), tmp_path / "x")
    largest = [line["largest_sampling_weight"] for line in run.metrics()]
    assert largest[0] == 1
    assert largest[1] == largest[2] > 1
    assert run.read_json("environment.json")["method"] == "Cluster-balanced on SDCLR"


def test_given_features_decide_from_the_first_epoch_on(tmp_path: Path) -> None:
    features = np.zeros((405, 2), np.float32)
    features[:5] = 1
    np.save(tmp_path / "features.npy", features)
    setting = f"method.features={tmp_path / 'features.npy'}"
    config = conformance.run_config("cluster_balanced", setting, "method.clusters=[2]")
    run = pretrain(config, tmp_path / "x")
    found = [line["largest_sampling_weight"] for line in run.metrics()]
    assert found == pytest.approx([405 / 2 / 5] * 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((4, 2)), r"must hold numbers \[405, D\], .* got float64 \[4, 2\]"),
        (np.full((405, 1), np.nan), "not finite"),
        (np.array(["a"] * 405)[:, None], r"must hold numbers"),
        (b"no numpy", r"is not a \.npy file"),
    ],
)
def test_features_that_do_not_fit_are_refused(
    content: np.ndarray | bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "features.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    config = conformance.run_config("cluster_balanced", f"method.features={path}")
    with pytest.raises(DataError, match=words):
        pretrain(config, tmp_path / "x")
    path.unlink()
    with pytest.raises(MissingInputError, match="does not exist"):
        pretrain(config, tmp_path / "x")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"features": "x.npy", "refresh_every_epochs": 2}, "clustered once"),
        ({"clusters": [10, 100]}, "become fewer"),
        ({"clusters": []}, "become fewer"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ClusterBalancedConfig.parse(settings)


def test_a_run_too_short_for_its_clusters_is_refused(tmp_path: Path) -> None:
    config = conformance.run_config("cluster_balanced", "method.refresh_every_epochs=3")
    with pytest.raises(ConfigError, match="after epoch 3, and the run has 3"):
        pretrain(config, tmp_path / "x")


@pytest.mark.parametrize("name", ["cluster_balanced", "bcl_i", "bcl_d"])
def test_of_one_epoch_it_is_said_that_nothing_is_added(name: str, tmp_path: Path) -> None:
    said = NoProgress()
    lines: list[str] = []
    said.print = lines.append  # type: ignore[method-assign]
    pretrain(conformance.run_config(name, "epochs=1"), tmp_path / "x", progress=said)
    assert sum("and the run has one: it trains as its base does" in line for line in lines) == 1


@pytest.mark.journeys
def test_it_lies_around_another_add_on(tmp_path: Path) -> None:
    """GH on BCL-D, drawn by clusters: three memories in one checkpoint, bit for bit across a stop."""
    overrides = (
        "method.base.name=gh",
        "method.base.base.name=bcl_d",
        "method.base.warmup_share=0.3",
        "method.clusters=[20,4]",
    )
    conformance.a_stopped_run_ends_like_a_whole_one("cluster_balanced", tmp_path, *overrides)
