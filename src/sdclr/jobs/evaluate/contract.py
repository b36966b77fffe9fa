"""Hold a running probe to its contract: what it returns, and what it must leave unchanged."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from sdclr.data.splits import Positions
from sdclr.errors import ConfigError, SdclrError
from sdclr.evaluation.features import Labels
from sdclr.evaluation.probe import BrokenContract, Probe, ProbeConfig, Untouched
from sdclr.evaluation.probes import ProbeRow
from sdclr.jobs.evaluate.frozen_features import FrozenFeatures
from sdclr.safe_text import shown

LONGEST_DETAIL = 1000
"""Characters; both ends of a longer detail are kept."""


@contextmanager
def held_to_contract(
    row: ProbeRow, frozen: FrozenFeatures, *, needs_crops: bool
) -> Iterator[Untouched]:
    """Name the probe in errors raised by an external one; raise ConfigError if a probe changed its inputs.

    Yields the object that watches the tensors the probe reads.
    """
    untouched = Untouched()
    if needs_crops:
        untouched.watch("the network", frozen.backbone.state_dict().values())
    called = f"probe {row.name} ({shown(row.origin)})" if row.origin else f"probe {row.name}"
    try:
        yield untouched
        untouched.require()
    except BrokenContract as error:
        raise ConfigError(f"{called} breaks the contract of probes: {error}") from None
    except SdclrError:
        raise
    except Exception as error:
        if not row.origin:
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = shown(f"{frame.filename}, line {frame.lineno}")
        reason = f"{type(error).__name__}: {shown(error)}"
        raise ConfigError(f"{called} failed: {reason} ({where}).") from error


class WatchedImages:
    """One part of the data as a probe sees it; writing into it is an error."""

    def __init__(
        self,
        frozen: FrozenFeatures,
        part: str,
        untouched: Untouched,
        positions: Positions | None = None,
    ) -> None:
        """``positions``: positions in the part of the images that the probe sees; None: all of them."""
        self.frozen, self.part, self.untouched = frozen, part, untouched
        self.positions = positions
        self._features: Tensor | None = None

    @property
    def features(self) -> Tensor:
        """[N, F], extracted on first access."""
        if self._features is None:
            features = self.frozen.features(self.part)
            self._features = features if self.positions is None else features[self.positions]
            self.untouched.watch("the features", [self._features])
        return self._features

    @property
    def labels(self) -> Labels:
        """int64 [N]."""
        labels = self.frozen.labels(self.part)
        return labels if self.positions is None else labels[self.positions]


def facts_of(row: ProbeRow, settings: ProbeConfig) -> dict[str, Any]:
    """What a results file records about the probe, so that it can be shown where its code is not available."""
    facts: dict[str, Any] = {"display_name": row.display_name}
    if row.origin:
        facts["origin"] = row.origin
    if values := settings.to_dict():
        facts["settings"] = values
    return facts


def detail_of(probe: Probe) -> str:
    """What the probe reports about its fit; optional, so it may be empty."""
    return shown(getattr(probe, "detail", ""), LONGEST_DETAIL)
