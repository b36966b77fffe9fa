"""One holder, who is named; any number of askers, and each gets the right answer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sdclr.errors import RunFolderError
from sdclr.run import Run
from sdclr.storage import locks
from sdclr.storage.locks import Lock, writing


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    with (
        Lock(tmp_path / "a.lock", "the run"),
        pytest.raises(
            RunFolderError,
            match=rf"the run is in use by another process \(process {os.getpid()} on ",
        ),
        Lock(tmp_path / "a.lock", "the run"),
    ):
        pass
    with Lock(tmp_path / "a.lock", "the run"):
        pass


def test_a_lock_on_a_file_leaves_nothing_behind(tmp_path: Path) -> None:
    with writing(tmp_path / "features.npz"):
        assert len(os.listdir(tmp_path)) == 2
        with (
            pytest.raises(RunFolderError, match=r"features\.npz is in use"),
            writing(tmp_path / "features.npz"),
        ):
            pass
    assert os.listdir(tmp_path) == []


def test_a_lock_ends_with_its_process_and_its_note_counts_nothing(tmp_path: Path) -> None:
    code = f"import os\nfrom sdclr.run import Run\nwith Run({str(tmp_path)!r}): os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / ".lock.json").exists(), "what a killed process leaves"
    assert not Run(tmp_path).in_use()
    with Run(tmp_path) as run:
        assert Run(tmp_path).in_use()
        assert not run.in_use()


@pytest.mark.parametrize("held", [False, True])
def test_several_askers_at_once_all_get_the_right_answer(tmp_path: Path, held: bool) -> None:
    with Run(tmp_path):
        note = (tmp_path / ".lock.json").read_text()
    # as after a kill: the askers have to look at the lock itself
    (tmp_path / ".lock.json").write_text(note)
    answers: list[bool] = []

    def ask() -> None:
        mine = [Run(tmp_path).in_use() for _ in range(300)]
        answers.extend(mine)

    def all_ask() -> None:
        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()

    if held:
        with Run(tmp_path):
            all_ask()
    else:
        all_ask()
    assert answers == [held] * 1200


@pytest.mark.parametrize("name", ["a.lock", "a.lock.json"])
@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_a_foreign_file_of_the_locks_name_is_left_alone(
    tmp_path: Path, name: str, kind: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if kind == "file":
        (tmp_path / name).write_text("precious")
    elif kind == "link":
        (tmp_path / name).symlink_to(victim)
    else:
        (tmp_path / name).mkdir()
    with (
        pytest.raises(RunFolderError, match="exists and is not a lock of sdclr"),
        Lock(tmp_path / "a.lock", "x"),
    ):
        pass
    assert victim.read_text() == "precious"
    if kind == "file":
        assert (tmp_path / name).read_text() == "precious"


def test_without_fcntl_askers_still_learn_who_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.0)
    assert not Lock(tmp_path / "a.lock", "x").held_elsewhere()
    with Lock(tmp_path / "a.lock", "x") as lock:
        assert Lock(tmp_path / "a.lock", "x").held_elsewhere()
        assert not lock.held_elsewhere()
    assert not Lock(tmp_path / "a.lock", "x").held_elsewhere()


def test_a_note_that_goes_away_while_it_is_looked_at_is_no_foreign_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another taker may let go of the lock between two looks at its note."""
    lock = Lock(tmp_path / ".x.lock", "x")
    with Lock(tmp_path / ".x.lock", "x"):
        (note,) = [path for path in tmp_path.iterdir() if path.read_bytes()]
        opened = Path.open

        def gone(path: Path, *arguments: Any, **options: Any) -> Any:
            if path == note:
                note.unlink()
            return opened(path, *arguments, **options)

        monkeypatch.setattr(Path, "open", gone)
        assert not lock._is_foreign_note()
    assert not note.exists()
