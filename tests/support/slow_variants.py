"""Variants of a test that only the tier of slow tests runs."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*values: Any) -> Any:
    """Parameters of a variant whose like runs at once."""
    return pytest.param(*values, marks=pytest.mark.slow)
