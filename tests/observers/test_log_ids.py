from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from sdclr.observers.log_ids import LOGS_FILE, record_id, recorded_id


def test_ids_are_those_of_the_folder_wherever_it_is(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    record_id(str(tmp_path / "x"), "mlflow", "a")
    record_id(str(tmp_path / "x"), "wandb", "b")
    shutil.copytree(tmp_path / "x", tmp_path / "copy")
    assert recorded_id(str(tmp_path / "copy"), "mlflow") is None
    (tmp_path / "x").rename(tmp_path / "moved")
    assert recorded_id(str(tmp_path / "moved"), "mlflow") == "a"
    assert recorded_id(str(tmp_path / "moved"), "wandb") == "b"
    assert recorded_id(str(tmp_path / "moved"), "tensorboard") is None
    (tmp_path / "x").mkdir()
    record_id(str(tmp_path / "x"), "mlflow", "new")
    assert recorded_id(str(tmp_path / "moved"), "mlflow") == "a", "its old place has another run"
    assert recorded_id(str(tmp_path / "x"), "mlflow") == "new"


@pytest.mark.parametrize("content", ["", "[]", '{"ids": 3}', "{", "\udcff"])
def test_a_file_that_somebody_has_changed_holds_no_id(tmp_path: Path, content: str) -> None:
    (tmp_path / LOGS_FILE).write_text(content, encoding="utf-8", errors="surrogateescape")
    assert recorded_id(str(tmp_path), "mlflow") is None
    record_id(str(tmp_path), "mlflow", "a")
    assert recorded_id(str(tmp_path), "mlflow") == "a"


@pytest.mark.parametrize("place", ["x" * 5000, "closed", "a file", "\0", ""])
def test_ids_stay_where_their_recorded_place_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Such as a run that was copied from another account, whose home is closed to this one."""

    def samefile(one: str, other: str) -> bool:
        if one == "closed":
            raise PermissionError(13, "Permission denied", one)
        return real(one, other)

    real = os.path.samefile
    monkeypatch.setattr(os.path, "samefile", samefile)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    (tmp_path / LOGS_FILE).write_text(json.dumps({"folder": place, "ids": {"mlflow": "a"}}))
    assert recorded_id(str(tmp_path), "mlflow") == "a"
    record_id(str(tmp_path), "mlflow", "b")
    assert recorded_id(str(tmp_path), "mlflow") == "b"


def test_a_training_without_a_folder_has_no_id() -> None:
    record_id("", "mlflow", "a")
    assert recorded_id("", "mlflow") is None
