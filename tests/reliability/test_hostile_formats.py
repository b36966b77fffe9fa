"""Inputs made by somebody who knows the format: only our own errors, within bounds of bytes and memory.

A sample of every format runs always, thousands of cases in the slow suite. With any one bound taken out, the series
notices.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostile_formats import BOUNDS, FORMATS, violations

pytestmark = pytest.mark.journeys

SUPPORT = Path(__file__).parents[1] / "support"
MANY = 2_000


@pytest.mark.parametrize("name", FORMATS)
def test_a_sample_of_hostile_inputs_gives_our_errors_within_bounds(name: str) -> None:
    assert violations(name, 0, 25) == []


def outside(*arguments: str) -> list[str]:
    """The violations that a process with limits of memory and time reports; its death is one, too."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), *filter(None, sys.path)])
    }
    command = [sys.executable, str(SUPPORT / "hostile_formats.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return (
        json.loads(done.stdout)
        if done.returncode == 0
        else [f"ended with {done.returncode}: {done.stderr[-300:]}"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_thousands_of_hostile_inputs_give_our_errors_within_bounds(name: str) -> None:
    size = 500
    found = [one for first in range(0, MANY, size) for one in outside(name, str(first), str(size))]
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("bound", BOUNDS)
def test_without_any_one_bound_the_series_notices(bound: str) -> None:
    assert outside(BOUNDS[bound][0], "0", "400", bound), f"{bound}: taken out, and nothing happened"
