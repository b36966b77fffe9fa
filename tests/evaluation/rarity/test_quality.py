"""Measures of a ranking without labels: what is stable is called so, and noise is not."""

from __future__ import annotations

import pytest
import torch

from sdclr.errors import DataError
from sdclr.evaluation.rarity import (
    agreement,
    spread,
    stability_over_dims,
    stability_over_images,
)


def uneven(seed: int = 0) -> torch.Tensor:
    """300 images around one direction, some far nearer to it than others, on 16 dims."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(300, 16, generator=generator)
    return 1 + noise * torch.logspace(-2, 0, 300).unsqueeze(1)


def test_a_collection_with_dense_and_thin_parts_is_ranked_alike_by_its_halves() -> None:
    assert stability_over_images(uneven()) > 0.9
    assert stability_over_dims(uneven()) > 0.6


def test_noise_is_ranked_differently_by_other_features() -> None:
    noise = torch.randn(300, 64, generator=torch.Generator().manual_seed(1))
    assert abs(stability_over_dims(noise)) < 0.3


def test_the_same_seed_gives_the_same_number() -> None:
    assert stability_over_images(uneven(), seed=3) == stability_over_images(uneven(), seed=3)
    assert stability_over_images(uneven(), seed=3) != stability_over_images(uneven(), seed=4)


def test_constant_scores_agree_with_nothing_and_do_not_spread() -> None:
    constant = torch.ones(50)
    assert agreement({"a": constant, "b": torch.arange(50.0)}) == 0
    assert spread(constant) == 0


def test_features_that_are_all_the_same_are_no_error_but_say_nothing() -> None:
    dead = torch.zeros(60, 8)
    dead[:, 0] = torch.arange(60.0)
    dead[:, 1] = 1
    assert stability_over_dims(dead) == 0
    mostly_equal = torch.ones(60, 3)
    mostly_equal[7] = torch.tensor([3.0, 1.0, 0.0])
    assert -1 <= stability_over_images(mostly_equal) <= 1


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(DataError, match="at least two scores"):
        agreement({"a": torch.ones(3)})
    with pytest.raises(DataError, match="at least 2"):
        stability_over_dims(torch.arange(40.0).unsqueeze(1))
