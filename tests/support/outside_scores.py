"""Scores of a user's own: one as it should be, and some that break the contract in one way each."""

from __future__ import annotations

from torch import Tensor

from sdclr.evaluation.rarity import Evidence


class Length:
    """Length of the feature vector."""

    name = "length"
    display_name = "Length"

    def score(self, evidence: Evidence) -> Tensor:
        assert evidence.features is not None
        return evidence.features.norm(dim=1)


class WithoutScore:
    name = display_name = "without_score"


class OfNothing(Length):
    name = "of_nothing"
    needs = ("labels",)


class Taken(Length):
    name = "knn_1"


REFUSED = (WithoutScore, OfNothing, Taken)


class OneForAll(Length):
    name = "one_for_all"

    def score(self, evidence: Evidence) -> Tensor:
        return super().score(evidence).mean()


class NotFinite(Length):
    name = "not_finite"

    def score(self, evidence: Evidence) -> Tensor:
        return super().score(evidence) / 0


BROKEN = (OneForAll, NotFinite)
