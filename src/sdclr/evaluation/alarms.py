"""What measurements of a training say is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Findings:
    values: dict[str, float]
    layers: dict[str, list[str]]
    untrained: dict[str, float]
    first: dict[str, float]
    num_images: int
    num_classes: int


@dataclass(frozen=True)
class Alarm:
    cause: str
    words: str


def alarms(found: Findings) -> list[Alarm]:
    return []
