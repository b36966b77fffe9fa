"""Shares and their intervals on a sample without labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdclr.evaluation.without_labels import SampleFeatures, measure_without_labels

Z = 1.959964


@pytest.mark.parametrize("num_found", [0, 3, 20])
def test_the_interval_of_a_share_is_wilsons_also_for_none_and_all(num_found: int) -> None:
    """The authority: the formula of Wilson's interval, by hand."""
    n = 20
    a = torch.eye(n)
    b = torch.cat([a[:num_found], a[num_found:].roll(1, 0)]) if num_found < n else a
    found = measure_without_labels(SampleFeatures(a, a, b))
    share = num_found / n
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    assert found.found == pytest.approx(share)
    low_part, high_part = share - (middle - half), middle + half - share
    assert found.found_half_width == pytest.approx(max(low_part, high_part), abs=1e-6)
    assert found.found_half_width > 0


def test_the_interval_of_the_distances_is_that_of_their_mean() -> None:
    draw = torch.Generator().manual_seed(0)
    stills, a, b = (torch.randn(30, 5, generator=draw) for _ in range(3))
    found = measure_without_labels(SampleFeatures(stills, a, b))
    normal = torch.nn.functional.normalize
    distances = ((normal(a) - normal(b)) ** 2).sum(dim=1).double().numpy()
    assert found.view_distance == pytest.approx(distances.mean(), rel=1e-5)
    expected = 1.96 * distances.std(ddof=1) / np.sqrt(30)
    assert found.view_distance_half_width == pytest.approx(expected, rel=1e-5)
