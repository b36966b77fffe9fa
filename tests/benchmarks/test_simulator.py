"""The simulator fits what it says, and the page says what it prints."""

from __future__ import annotations

import numpy as np
import pytest
import simulator
from simulator import Work, exchange_parts, line, seconds_of, step_model, step_seconds

WORK = Work("network", 512, 0.01, 1e7, 20, 2, 32, False, True)


def test_a_line_is_the_one_that_numpy_fits_to_relative_errors() -> None:
    x, y = [1e3, 1e4, 1e5, 3e5], [2.0, 3.5, 15.0, 49.0]
    slope, offset = np.polyfit(x, y, 1, w=1 / np.array(y))
    assert line(x, y) == pytest.approx((offset, slope))


def test_a_step_that_follows_the_model_is_found_again_from_two_processes() -> None:
    seconds = [step_seconds(count, 0.8, 0.3) for count in (1, 2, 3, 4)]
    assert seconds == pytest.approx([0.8, 0.4 + 0.3, 0.4 + 0.6, 0.4 + 0.9])
    assert step_model(*seconds[:2]) == pytest.approx((0.8, 0.3))


def test_one_gpu_exchanges_nothing_and_every_part_grows_with_their_number() -> None:
    assert exchange_parts(WORK, 1) == {}
    assert seconds_of(WORK, 1)[0] == 0.01
    before: dict[str, float] = {}
    for gpus in (2, 8, 64, 512):
        parts = exchange_parts(WORK, gpus)
        assert all(parts[name] > seconds for name, seconds in before.items())
        before = parts
    gradients = 2 * (7 / 8) * 1e7 * 4 / simulator.NVLINK + 3 * simulator.LATENCY[True]
    assert exchange_parts(WORK, 8)["gradients"] == pytest.approx(gradients), "a ring's bytes"


def test_a_point_that_was_held_out_is_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    read = simulator.read

    def spoiled(name: str) -> dict[str, object]:
        subjects = read(name)
        for subject in subjects.values():
            for points in subject.get("points", {}).values():
                points[-1]["median"] *= 10
        return subjects

    honest = simulator.held_out()
    monkeypatch.setattr(simulator, "read", spoiled)
    for fit, other in zip(honest, simulator.held_out(), strict=True):
        assert other.predicted == fit.predicted, fit.what


def test_the_page_says_what_the_command_prints() -> None:
    page = simulator.PAGE.read_text(encoding="utf-8")
    assert simulator.rewritten(page) == page, "run: python benchmarks/simulator.py --page"
