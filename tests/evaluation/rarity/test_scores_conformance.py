"""Every score of the table keeps to the contract, one from outside included."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import outside_scores
import sdclr
from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.rarity import DEFAULT, DEFAULT_ORDER, SCORES, Evidence, register_score
from sdclr.evaluation.rarity.evidence import NEEDS

NAMES = [*SCORES, "length"]


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    with SCORES.temporarily():
        register_score(outside_scores.Length)
        yield


def evidence(n: int = 60, dtype: torch.dtype = torch.float32, **changes: object) -> Evidence:
    """All that a score can need, of n images; the same at every call."""
    g = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    given = {
        "features": normal(n, 7),
        "losses": normal(4, n).exp(),
        "masses": normal(4, n).sigmoid(),
        "projections": normal(2, n, 5),
        "competitor_projections": normal(2, n, 5),
        "view_losses": normal(2, n),
        "competitor_view_losses": normal(2, n),
    }
    return Evidence(**{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_one_finite_number_for_each_image_deterministic_and_changes_nothing(
    name: str,
) -> None:
    given = evidence()
    before = {need: getattr(given, need).clone() for need in NEEDS}
    found = SCORES[name].score(given)
    assert found.shape == (60,)
    assert found.dtype == torch.float64
    assert found.unique().numel() > 1, "it says nothing"
    assert torch.equal(found, SCORES[name].score(evidence())), "it is not deterministic"
    for need, values in before.items():
        assert torch.equal(getattr(given, need), values), f"it changed {need}"


@pytest.mark.parametrize("name", NAMES)
def test_a_score_reads_only_what_it_needs_and_says_what_is_lacking(name: str) -> None:
    row = SCORES[name]
    lacking = set(NEEDS) - set(row.needs) - {"features"}
    enough = evidence(**dict.fromkeys(lacking))
    assert torch.equal(row.score(enough), row.score(evidence()))
    for need in row.needs:
        others = {other: None for other in NEEDS if other == need}
        poor = evidence(**others)
        assert not row.applies_to(poor)
        with pytest.raises(DataError, match=f"{name} needs {need}"):
            row.score(poor)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if SCORES.get(name) is None or SCORES[name].needs]
)
@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_score_works_on_very_few_images(name: str, n: int) -> None:
    assert SCORES[name].score(evidence(n)).shape == (n,)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_does_not_depend_on_the_scale_of_features_unless_it_is_from_outside(
    name: str,
) -> None:
    row = SCORES[name]
    if row.needs != ("features",) or row.origin:
        return
    given = evidence(dtype=torch.float64)
    assert given.features is not None
    scaled = evidence(dtype=torch.float64, features=given.features * 4)
    torch.testing.assert_close(row.score(given), row.score(scaled), rtol=1e-9, atol=1e-9)


def test_scores_of_rarity_put_a_far_image_first() -> None:
    torch.manual_seed(0)
    features = torch.cat(
        [torch.tensor([5.0, 5.0, 0.0]) + 0.3 * torch.randn(80, 3), torch.tensor([[-5.0, 5, 5]])]
    )
    given = Evidence(features)
    for name, row in SCORES.items():
        if row.needs == ("features",) and name not in ("typiclust", "centre_distance", "length"):
            best = row.score(given)
            assert best[80] == best.max(), name


def test_the_defaults_are_scores_of_features() -> None:
    assert SCORES[DEFAULT].needs == ("features",)
    assert not SCORES[DEFAULT].is_order
    assert SCORES[DEFAULT_ORDER].needs == ("features",)


@pytest.mark.parametrize("score", outside_scores.REFUSED, ids=lambda score: score.name)
def test_a_class_that_is_no_score_is_refused(score: type) -> None:
    with pytest.raises(ConfigError, match=r"is not a score|already"):
        sdclr.register_score(score)


@pytest.mark.parametrize("score", outside_scores.BROKEN, ids=lambda score: score.name)
def test_a_score_that_breaks_the_contract_is_named(score: type) -> None:
    row = register_score(score)
    with pytest.raises(DataError, match=score.name):  # type: ignore[attr-defined]
        row.score(evidence())


def test_evidence_of_different_numbers_of_images_is_refused() -> None:
    with pytest.raises(DataError, match="different numbers of images"):
        evidence(losses=torch.zeros(2, 5))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.ones(1, 4), "at least 2"),
        (torch.ones(5, 4), "all 5 images are the same"),
        (torch.tensor([[1.0, 2.0], [float("nan"), 0.0]]), "row 1"),
        (torch.ones(5), "shape"),
    ],
    ids=["one row", "all the same", "NaN", "no rows"],
)
def test_features_of_which_no_score_can_be_made_are_refused(
    features: torch.Tensor, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Evidence(features)


def test_features_that_only_differ_in_length_are_refused_where_directions_count() -> None:
    given = Evidence(torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))
    with pytest.raises(DataError, match="point the same way"):
        SCORES["mahalanobis"].score(given)


def test_images_of_one_group_are_no_neighbours() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.001], [0.0, 1.0], [0.2, 1.0]])
    apart = Evidence(features, groups=torch.tensor([0, 0, 1, 2]))
    assert apart.neighbours(1).indices.flatten().tolist() == [3, 3, 3, 2]
    with pytest.raises(DataError, match="one group covers all 4"):
        Evidence(features, groups=torch.zeros(4, dtype=torch.int64))
