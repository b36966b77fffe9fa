"""Each export is read by the package of the tool it is for: make test-tools installs them apart."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from browsers import tools_python
from mined_images import digits, hostile
from patience import PATIENCE_SECONDS
from sdclr.presentation.mining.exports import EXPORTS

pytestmark = pytest.mark.tools

READER = Path(__file__).parents[2] / "support" / "read_with_tools.py"
ROWS = [7, 0, 3, 12]
MARKS = {0: True, 3: False, 12: None}


def read(name: str, content: bytes, folder: Path) -> Any:
    path = folder / EXPORTS[name].file_name
    path.write_bytes(content)
    command = [tools_python(), str(READER), name, str(path)]
    # a home of its own, and nobody is told that it is used
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    clean |= {"HOME": str(folder), "FIFTYONE_DO_NOT_TRACK": "true"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=clean, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_fiftyone_has_the_score_as_a_field_of_each_file(tmp_path: Path) -> None:
    mined, _ = digits()
    samples = read("fiftyone", EXPORTS["fiftyone"].write(mined, ROWS, MARKS), tmp_path)
    found = {sample.pop("filepath"): sample for sample in samples}
    assert len(found) == len(samples) == len(ROWS)
    for row in ROWS:
        assert found[f"/photos/{mined.names[row]}"] == {
            "rarity": mined.score[row],
            "rarity_rank": mined.rank[row],
            "rarity_group": mined.group[row],
            "rarity_wanted": MARKS.get(row),
        }


@pytest.mark.parametrize("made", [digits, hostile])
def test_label_studio_takes_tasks_with_the_score_and_the_mark(made: Any, tmp_path: Path) -> None:
    mined, _ = made()
    rows = ROWS if made is digits else list(range(len(mined)))
    tasks = read("label_studio", EXPORTS["label_studio"].write(mined, rows, MARKS), tmp_path)
    assert [task["data"]["score"] for task in tasks] == mined.score[rows].tolist()
    shares = 1 - (mined.rank[rows] - 1) / len(mined)
    assert [task["score"] for task in tasks] == pytest.approx(shares.tolist())
    assert all(task["data"]["image"].startswith("/data/local-files/?d=") for task in tasks)


@pytest.mark.parametrize("made", [digits, hostile])
def test_cvat_takes_the_files_in_this_order(made: Any, tmp_path: Path) -> None:
    mined, _ = made()
    found = read("cvat", EXPORTS["cvat"].write(mined, ROWS, MARKS), tmp_path)
    assert found == {"files": [mined.names[row] for row in ROWS], "order": "predefined"}
