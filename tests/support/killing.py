"""What the tests of tests/reliability share: the tiny run of benchmarks/kill_campaign.py, forked, stopped, hashed."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import ModuleType

from sdclr.presentation.progress import NoProgress


def _script() -> ModuleType:
    path = Path(__file__).parent.parent.parent / "benchmarks" / "kill_campaign.py"
    spec = importlib.util.spec_from_file_location("kill_campaign", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_campaign"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


kill_campaign = _script()
config, state_hash = kill_campaign.config, kill_campaign.state_hash
forked, ended = kill_campaign.forked, kill_campaign.ended


class SignalAt(NoProgress):
    """Sends this process a signal after so many steps, and again if there are several."""

    def __init__(self, step: int, *numbers: int) -> None:
        self.left, self.numbers = step, numbers or (signal.SIGTERM,)

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        self.left -= amount
        if amount and self.left == 0:
            for number in self.numbers:
                os.kill(os.getpid(), number)
