"""One budget for the whole bench: what matters most is measured first, what does not fit is left out by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

WARM_UP_SHARE = 0.7
"""Share of the budget after which nothing more is warmed up, so that there is time left to measure."""


def by_importance(names: Iterable[str], main: str) -> list[str]:
    """``names`` from those that the promises of the ``main`` variant need to those that are nice to know."""
    return sorted(names, key=lambda name: _rank(name, main))  # stable: as they were, within a rank


def _rank(name: str, main: str) -> int:
    kind, _, variant = name.partition("[")
    if indispensable(name, main):
        return 0
    if name in (f"sdclr_end_to_end[{main}]", f"sdclr_with_views[{main}]"):
        return 1
    if kind in ("reference_end_to_end", "host_sort", "views", "pil_views"):
        return 2
    if kind in ("reference_step", "sdclr_with_views", "matmul"):
        return 3
    return 4 if variant and kind in ("sdclr_step", "simclr_step") else 5


def indispensable(name: str, main: str) -> bool:
    """Without these there is nothing to say; they are measured once whatever it takes."""
    return name in (f"sdclr_step[{main}]", f"simclr_step[{main}]", "mask_refresh")


def affordable(seconds: Mapping[str, float], left: float, main: str) -> list[str]:
    """What one round of ``left`` seconds has time for, when each takes as long as ``seconds`` says, in their order."""
    kept = set()
    for name in by_importance(seconds, main):
        if indispensable(name, main) or seconds[name] <= left:
            kept.add(name)
            left -= seconds[name]
    return [name for name in seconds if name in kept]
