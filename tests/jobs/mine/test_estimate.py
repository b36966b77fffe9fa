from __future__ import annotations

import numpy as np
import pytest
import torch

from sdclr.evaluation.rarity import SCORES, Evidence, agreement
from sdclr.jobs.mine.estimate import estimated, judged_by_labels


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(80, 6, generator=torch.Generator().manual_seed(0))


def test_orders_are_left_out_of_the_agreement(features: torch.Tensor) -> None:
    evidence = Evidence(features)
    scores = {name: SCORES[name].score(evidence) for name in ("density", "k_centre", "typiclust")}
    assert "agreement" not in estimated(features, scores)[0]
    scores["lof_20"] = SCORES["lof_20"].score(evidence)
    degrees = {name: scores[name] for name in ("density", "lof_20")}
    assert estimated(features, scores)[0]["agreement"] == round(agreement(degrees), 4)


def test_the_verdict_needs_more_than_one_lucky_image() -> None:
    score = torch.arange(40.0).double()
    one = judged_by_labels(score, np.array([0] * 39 + [1]), ["many", "few"])
    assert one.better_than_chance is None
    assert "cannot be told from chance: AUROC 1.00" in one.sentence
    ten = judged_by_labels(score, np.array([0] * 30 + [1] * 10), ["many", "few"])
    assert ten.better_than_chance is True
    worse = judged_by_labels(-score, np.array([0] * 30 + [1] * 10), ["many", "few"])
    assert worse.better_than_chance is False
    assert "is worse than chance" in worse.sentence
