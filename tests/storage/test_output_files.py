"""What is not ours is never written over, whatever its name; what is refused is refused before any work."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from sdclr.errors import ConfigError, RunFolderError, StorageError
from sdclr.run import Run
from sdclr.storage import durable_files
from sdclr.storage.durable_files import explained, is_leftover, temporary_name, write_atomically
from sdclr.storage.output_files import begins_with, output_file, write_output


def test_a_file_that_exists_is_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "o.txt"
    out.write_text("precious")
    with pytest.raises(ConfigError, match=r"o\.txt exists; give --overwrite to replace it"):
        write_output(out, "new", overwrite=False)
    assert out.read_text() == "precious"
    write_output(out, "new", overwrite=True)
    assert out.read_text() == "new"
    assert os.listdir(tmp_path) == ["o.txt"]


def test_a_link_is_replaced_and_never_followed(tmp_path: Path) -> None:
    victim, out = tmp_path / "victim", tmp_path / "o.txt"
    victim.write_text("precious")
    for target in (victim, tmp_path / "nowhere"):
        out.symlink_to(target)
        with pytest.raises(ConfigError, match="exists"):
            write_output(out, "new", overwrite=False)
        write_output(out, "new", overwrite=True)
        assert not out.is_symlink()
        out.unlink()
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_two_cannot_write_one_file_at_once(tmp_path: Path) -> None:
    with (
        output_file(tmp_path / "o", overwrite=False),
        pytest.raises(RunFolderError, match="in use by another"),
        output_file(tmp_path / "o", overwrite=False),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no/such/o.txt", "does not exist; make it first"),
        ("/dev/null/o.txt", "/dev/null is not a folder"),
        (".", "is a folder"),
        ("x" * 300, "Choose a shorter"),
    ],
)
def test_a_place_that_cannot_be_written_is_named_before_the_work(
    tmp_path: Path, name: str, words: str
) -> None:
    with (
        pytest.raises((ConfigError, RunFolderError), match=words),
        output_file(tmp_path / name, overwrite=True),
    ):
        pytest.fail("worked")
    assert os.listdir(tmp_path) == []


def test_names_of_any_length_have_locks_of_their_own(tmp_path: Path) -> None:
    names = ["a" * 60 + ending for ending in (".md", ".html", "")]
    with ExitStack() as held:
        for name in names:
            held.enter_context(output_file(tmp_path / name, overwrite=False))
        with pytest.raises(RunFolderError, match="in use"):
            held.enter_context(output_file(tmp_path / names[0], overwrite=False))


def test_a_temporary_name_cannot_be_guessed_and_what_bears_it_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {temporary_name(tmp_path / "config.yaml").name for _ in range(100)}
    assert len(names) == 100
    assert all(map(is_leftover, names))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    planted = tmp_path / ".planted.tmp"
    planted.symlink_to(victim)
    monkeypatch.setattr(durable_files, "temporary_name", lambda path: planted)
    with pytest.raises(RunFolderError, match="File exists"):
        write_atomically(tmp_path / "o.txt", "new")
    assert victim.read_text() == "precious"


def test_names_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    write_output(tmp_path / ("ä" * 127), "new", overwrite=False)
    assert len(os.listdir(tmp_path)) == 1


def test_a_run_folder_is_cleared_of_half_written_files_and_of_nothing_else(tmp_path: Path) -> None:
    keep = [".mine.tmp", "notes.tmp", ".config.yaml.0123.tmp", "config.yaml"]
    for name in [*keep, ".config.yaml.0123456789abcdef.tmp"]:
        (tmp_path / name).write_text("x")
    with Run(tmp_path):
        pass
    assert sorted(set(os.listdir(tmp_path)) - {".lock"}) == sorted(keep)


def test_a_log_of_metrics_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "metrics.jsonl").symlink_to(victim)
    with pytest.raises(RunFolderError, match="link"):
        Run(tmp_path).metrics_file.append({"epoch": 1})
    assert victim.read_text() == "precious"


def test_only_a_regular_file_of_ours_is_known_for_ours(tmp_path: Path) -> None:
    (tmp_path / "ours").write_text("<mark>\nrest")
    (tmp_path / "theirs").write_text("<mar")
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    assert [
        begins_with(tmp_path / name, "<mark>") for name in ("ours", "theirs", "link", "no")
    ] == [True, *[False] * 3]


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, StorageError, "Free space, then"),
        (errno.EDQUOT, StorageError, "quota"),
        (errno.EIO, StorageError, "The storage itself fails"),
        (errno.EFBIG, StorageError, "ulimit -f"),
        (errno.EMFILE, StorageError, "ulimit -n"),
        (errno.ENOENT, RunFolderError, "folder on the way to it is missing"),
        (errno.ENAMETOOLONG, RunFolderError, "shorter"),
        (errno.EXDEV, RunFolderError, "two file systems"),
        (errno.EACCES, RunFolderError, "Choose another --out"),
        (errno.ELOOP, RunFolderError, "link"),
        (errno.EPROTO, StorageError, "Choose another place"),
    ],
)
def test_the_advice_fits_what_the_system_has_said(
    number: int, kind: type[Exception], words: str
) -> None:
    error = explained(OSError(number, os.strerror(number)), Path("x"))
    assert type(error) is kind
    assert words in str(error)
    assert ("Free space" in str(error)) == (number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
