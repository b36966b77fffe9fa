from __future__ import annotations

import json
from pathlib import Path

from sdclr.run import Run


def test_metrics_are_cut_to_what_a_checkpoint_remembers(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics_file.cut(0)  # nothing there yet
    run.metrics_file.append({"epoch": 1})
    size = run.metrics_file.size()
    run.metrics_file.append({"epoch": 2})
    run.metrics_file.cut(size)
    assert [json.loads(line) for line in run.metrics_path.read_text().splitlines()] == [
        {"epoch": 1}
    ]
