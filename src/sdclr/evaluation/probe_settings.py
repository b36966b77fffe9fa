"""Settings of the probes. Imports no torch, so that a plan of many runs can name what would be measured."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

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


class EqualNeighboursConfig(ProbeConfig):
    """Nearest neighbours with one vote each."""

    k: PositiveInt = 10
    """Neighbours that vote."""


class NearestConfig(EqualNeighboursConfig):
    """The nearest neighbour alone."""

    k: PositiveInt = 1
    """Neighbours that vote."""


class AdamConfig(ProbeConfig):
    """A linear classifier trained by Adam on fixed features; the defaults are those of BCL's authors."""

    epochs: PositiveInt = 500
    """The classifier of the last epoch is used; nothing is chosen on validation."""
    batch_size: PositiveInt = 1000
    """Images per step."""
    learning_rate: PositiveFloat = 1e-2
    """In the first epoch."""
    final_learning_rate: PositiveFloat = 1e-6
    """The learning rate decays to this by a constant factor per epoch: it would follow the last epoch."""
    weight_decay: NonNegativeFloat = 5e-6
    """Added to the gradient, as in Adam, not as in AdamW."""


class SVMConfig(ProbeConfig):
    """scikit-learn's LinearSVC on features of length 1."""

    inverse_regularisation: PositiveFloat = 1.0
    """C: smaller is stronger."""
    max_iterations: PositiveInt = 1000
    """Iterations of its solver."""
