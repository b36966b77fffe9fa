"""The targets of test_fuzz.py again, by atheris: inputs that take a new branch of a reader are changed further."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from sdclr.errors import EXIT_BUG

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("atheris") is None, reason='needs pip install "sdclr[fuzz]"'
    ),
]
SCRIPT = Path(__file__).parent.parent / "support" / "coverage_guided.py"
RUNS = {
    "image_lists": 20_000,
    "position_lists": 20_000,
    "configs": 5_000,
    "label_files": 20_000,
    "checkpoint_headers": 10_000,
}
SEEDS = 2
"""At most, of a target."""


def fuzzed(target: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """atheris takes over the process that it is in, so it gets one of its own."""
    command = [sys.executable, str(SCRIPT), target, str(folder), "-seed=1", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=1800)


@pytest.mark.parametrize("target", RUNS)
def test_only_our_errors_escape(tmp_path: Path, target: str) -> None:
    found = fuzzed(target, tmp_path, f"-runs={RUNS[target]}")
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert f"Done {RUNS[target]} runs" in found.stderr
    assert len(list(tmp_path.iterdir())) > SEEDS, (
        "some input took a new branch: coverage does guide"
    )


def test_a_reader_that_lets_a_value_error_escape_is_found(tmp_path: Path) -> None:
    found = fuzzed("image_lists", tmp_path, "-runs=20000", "--mutant")
    assert found.returncode not in (0, EXIT_BUG)
    assert "ValueError: invalid literal for int()" in found.stdout + found.stderr
