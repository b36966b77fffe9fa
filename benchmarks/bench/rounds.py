"""Interleaved timing: the actions take turns, so that a drifting machine hits them alike.

A ratio is the median over rounds of what ran back to back, with its range; one round never decides.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Action = Callable[[], float]
"""Does its work once and returns the seconds it took."""
Times = dict[str, list[float]]
"""Seconds by action, one entry a round."""


def timed(work: Callable[[], object], device: torch.device) -> Action:
    """``work`` as an action, its kernels on ``device`` included."""

    def action() -> float:
        wait_for(device)
        begun = time.perf_counter()
        work()
        wait_for(device)
        return time.perf_counter() - begun

    return action


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process for ``work`` done once: other work on the machine disturbs little."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(
    actions: Mapping[str, Action],
    *,
    rounds: int,
    seconds: float,
    advance: Callable[[], object] = lambda: None,
    into: Times | None = None,
) -> Times:
    """Up to ``rounds`` rounds over all actions; after the first, none begins that would not end within ``seconds``.

    Actions must have run once before: caches, allocators and compilers are warm. ``into`` is filled as they end, for
    who is interrupted.
    """
    times: Times = {} if into is None else into
    times |= {name: [] for name in actions}
    begun = time.perf_counter()
    for done in range(rounds):
        spent = time.perf_counter() - begun
        if done and spent * (done + 1) / done > seconds:
            break
        for name, action in actions.items():
            times[name].append(action())
            advance()
    return times


def whole_rounds(times: Times) -> int:
    """How many rounds every action has ended."""
    return min(map(len, times.values()), default=0)


def cost(times: Times, name: str, per_epoch: str | None, steps_per_epoch: int) -> list[float]:
    """Seconds of ``name`` in every round, with a step's share of what is done once an epoch."""
    if per_epoch is None:
        return times[name]
    own, once = _by_round(times[name], times[per_epoch])
    return [one + all_of_it / steps_per_epoch for one, all_of_it in zip(own, once, strict=True)]


def round_ratios(above: list[float], below: list[float]) -> list[float]:
    """One ratio a round; of the medians where the two were not in the same rounds."""
    return [a / b for a, b in zip(*_by_round(above, below), strict=True)]


def _by_round(some: list[float], others: list[float]) -> tuple[list[float], list[float]]:
    if len(some) == len(others):
        return some, others
    return [statistics.median(some)], [statistics.median(others)]


def summary(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
