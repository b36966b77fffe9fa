"""Commands that are proposed have the options that these runs need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdclr.run import Run
from sdclr.run.next_step import evaluate_command


def run_folder(folder: Path, split: dict[str, Any], outside: dict[str, str]) -> Run:
    (folder / "evaluation").mkdir(parents=True)
    (folder / "config.yaml").write_text("backbone: {name: mine}\nmethod: {name: theirs}\n")
    (folder / "environment.json").write_text(json.dumps({"outside": outside}))
    (folder / "split.json").write_text(json.dumps({"fingerprint": "", **split}))
    return Run(folder)


@pytest.mark.parametrize(("counts", "rule"), [
    ({}, ""), ({"train": [5, 4]}, ""), ({"train": [5, 1, 4]}, " --untested leave_out"),
    ({"train": [5, 1], "test": [1, 1]}, ""), ({"train": [5, 1], "test": [1, 0]}, " --untested leave_out"),
])  # fmt: skip
def test_an_evaluation_is_proposed_with_what_it_needs(
    tmp_path: Path, counts: dict[str, Any], rule: str
) -> None:
    run = run_folder(tmp_path / "a", {"counts": counts}, {"backbone": "m:mine", "method": "m:no"})
    assert evaluate_command(run) == f"sdclr evaluate {tmp_path}/a{rule} --use m:mine"
    with_labels = evaluate_command(run, more=["--probes", "knn"], labels=True)
    assert with_labels == (
        f"sdclr evaluate {tmp_path}/a --probes knn{rule} --use m:mine --labels FILE"
    )


def test_labels_that_came_later_are_needed_again(tmp_path: Path) -> None:
    a, b = (run_folder(tmp_path / name, {}, {}) for name in "ab")
    assert evaluate_command(a, b) == f"sdclr evaluate {tmp_path}/a {tmp_path}/b"
    b.evaluation_path("sdclr").write_text(json.dumps({"labels": {"source": "x.csv"}}))
    assert evaluate_command(a, b) == f"sdclr evaluate {tmp_path}/a {tmp_path}/b --labels FILE"
    (b.folder / "split.json").write_text("[")
    assert evaluate_command(b) == f"sdclr evaluate {tmp_path}/b --labels FILE"
