"""Settings of the probes. Imports no torch, so that a plan of many runs can name what would be measured."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from sdclr.config import Section

INVERSE_REGULARISATIONS = (0.001, 0.01, 0.1, 1.0)


class ProbeConfig(Section):
    """Settings of a probe; this base has none.

    >>> class RidgeConfig(ProbeConfig):
    ...     alpha: float = 10.0
    >>> RidgeConfig(alpha=1.0).to_dict()
    {'alpha': 1.0}
    """


class LogisticConfig(ProbeConfig):
    """Regularised logistic regression on standardised features."""

    inverse_regularisations: tuple[PositiveFloat, ...] = Field(
        default=INVERSE_REGULARISATIONS, min_length=1
    )
    """The values of C that are tried, from strong to weak."""


class NeighboursConfig(ProbeConfig):
    """Weighted nearest neighbours by cosine similarity."""

    k: PositiveInt = 10
    """Neighbours that vote."""
    temperature: PositiveFloat = 0.1
    """A neighbour's vote is exp(similarity / temperature)."""
