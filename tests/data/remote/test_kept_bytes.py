"""What is kept is what was read, within its bound, for several processes, killed ones among them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdclr.data.remote import kept_bytes
from sdclr.data.remote.kept_bytes import FOLDER, keep, kept
from sdclr.data.remote.limits import cache_bytes, num_retries
from sdclr.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDCLR_CACHE", str(tmp_path))
    monkeypatch.setenv("SDCLR_CACHE_GB", "0.0001")  # 100 kB
    monkeypatch.setattr(kept_bytes, "_written", {})
    monkeypatch.setattr(kept_bytes, "_warned", set())
    return tmp_path / FOLDER


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_kept_comes_back_and_nothing_else_does(folder: Path) -> None:
    keep("a", b"content")
    keep("empty", b"")
    assert kept("a") == b"content"
    assert kept("empty") == b""
    assert kept("b") is None


@pytest.mark.parametrize("damage", [b"", b"x", b"01234567content"])
def test_a_damaged_entry_is_none_and_goes(folder: Path, damage: bytes) -> None:
    keep("a", b"content")
    (file,) = files(folder)
    file.write_bytes(damage)
    assert kept("a") is None
    assert not file.exists()


def test_the_folder_never_takes_more_than_its_bound(folder: Path) -> None:
    for number in range(120):
        keep(str(number), os.urandom(2_000))
        assert sum(path.stat().st_size for path in files(folder)) <= cache_bytes()
    assert kept("119") is not None


def test_what_was_used_longest_ago_goes_first(folder: Path) -> None:
    for number in range(40):
        keep(str(number), os.urandom(2_000))
    for age, path in enumerate(files(folder)):
        os.utime(path, (1_000 + age, 1_000 + age))
    assert kept("0") is not None  # used just now
    kept_bytes.make_room(folder, 20_000)
    assert kept("0") is not None
    assert sum(path.stat().st_size for path in files(folder)) <= 20_000


def test_one_that_is_larger_than_a_share_of_the_bound_is_not_kept(folder: Path) -> None:
    keep("large", bytes(50_000))
    assert kept("large") is None


def test_a_bound_of_nothing_keeps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDCLR_CACHE_GB", "0")
    keep("a", b"content")
    assert kept("a") is None
    assert not folder.exists()


def test_a_bound_that_was_lowered_counts_from_the_first_look(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        keep(str(number), os.urandom(2_000))
    monkeypatch.setenv("SDCLR_CACHE_GB", "0")
    kept("39")
    assert len(files(folder)) == 40, "who keeps nothing leaves others theirs"
    monkeypatch.setenv("SDCLR_CACHE_GB", "0.00002")
    monkeypatch.setattr(
        kept_bytes, "_written", {}
    )  # another process, which finds all that it asks for
    kept("39")
    assert sum(path.stat().st_size for path in files(folder)) <= cache_bytes()


def test_what_a_killed_process_has_half_written_is_no_entry_and_goes(folder: Path) -> None:
    keep("a", bytes(40_000)[:1_000])
    (file,) = files(folder)
    half = file.with_name(f".{file.name}.{'0' * 16}.tmp")
    half.write_bytes(bytes(10))
    kept_bytes.make_room(folder, 100_000)
    assert half.exists()  # perhaps somebody writes it now
    os.utime(half, (1_000, 1_000))  # in 1970
    kept_bytes.make_room(folder, 100_000)
    assert not half.exists()
    assert kept("a") is not None


def test_several_processes_keep_within_the_bound(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    children = []
    for number in range(3):
        if not (child := os.fork()):
            for entry in range(60):
                keep(f"{number} {entry}", os.urandom(1_500))
                kept(f"{(number + 1) % 3} {entry}")
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    found = files(folder)
    assert 0 < sum(path.stat().st_size for path in found) <= cache_bytes()
    assert not [path for path in found if path.name.endswith(".tmp")]


def test_a_folder_that_cannot_be_written_is_one_warning_and_no_error(folder: Path) -> None:
    folder.write_text("in the way")
    with pytest.warns(UserWarning, match="cannot be kept there"):
        keep("a", b"content")
    keep("b", b"content")  # a second warning would be an error
    assert kept("a") is None


@pytest.mark.parametrize("text", ["many", "-1", "nan", "inf"])
def test_a_setting_that_is_no_number_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDCLR_REMOTE_RETRIES", text)
    with pytest.raises(ConfigError, match="SDCLR_REMOTE_RETRIES must be a number"):
        num_retries()
