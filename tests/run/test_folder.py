from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sdclr.errors import DataError, MissingInputError, RunFolderError
from sdclr.run import Run


def test_in_use_is_seen_from_outside_only(tmp_path: Path) -> None:
    mine, other = Run(tmp_path / "x"), Run(tmp_path / "x")
    assert not other.in_use(), "no folder yet"
    with mine:
        assert other.in_use()
        assert not mine.in_use(), "the one that writes is not another"
    assert not other.in_use()


def test_of_a_run_that_exists_no_other_folder_is_proposed(tmp_path: Path) -> None:
    with Run(tmp_path / "x"), pytest.raises(RunFolderError, match="or choose another --out"):
        Run(tmp_path / "x").__enter__()
    (tmp_path / "x" / "config.yaml").write_text("")
    with Run(tmp_path / "x"), pytest.raises(RunFolderError, match=r"wait for it\.$"):
        Run(tmp_path / "x").__enter__()


def test_two_processes_cannot_use_one_folder(tmp_path: Path) -> None:
    code = "import sys; from sdclr.run import Run\nwith Run(sys.argv[1]): pass"
    with Run(tmp_path / "x"):
        held = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True
        )
    assert held.returncode != 0
    assert "in use by another process" in held.stderr
    free = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True
    )
    assert free.returncode == 0


def test_a_run_that_ended_before_its_settings_were_written_is_told_so(tmp_path: Path) -> None:
    with Run(tmp_path / "x"):
        pass
    with pytest.raises(
        MissingInputError, match=r"no run yet: one was started there, .* command again"
    ):
        Run(tmp_path / "x").require()


def test_reading_what_is_not_there_or_not_json_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no config\.yaml"):
        Run(tmp_path).require()
    with pytest.raises(MissingInputError, match=r"split\.json"):
        Run(tmp_path).read_json("split.json")
    with pytest.raises(MissingInputError, match=r"nope does not exist"):
        Run(tmp_path / "nope").metrics()
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        Run(tmp_path).read_json("split.json")
