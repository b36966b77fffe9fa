"""todo"""

from __future__ import annotations

from typing import Any


def run_scaling(device: str, **kwargs: Any) -> None: ...
