"""An index says what a shard's headers say, costs little of the shard, and is built once."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from patience import PATIENCE_SECONDS
from range_server import RangeServer, range_server
from sdclr import any_progress
from sdclr.addresses import Address, Place
from sdclr.data.remote.ranges import version_of
from sdclr.data.sources import headers_read, shard_index
from sdclr.data.sources.shard_index import FOLDER, indexed_members
from sdclr.data.sources.shard_members import members_on_disk
from sdclr.data.sources.tar_shards import read_shards
from sdclr.errors import ConfigError, RemoteError
from sdclr.presentation.progress import NoProgress, Progress
from sdclr.storage import durable_files
from shard_stand_in import write_shard

NUM = 20
MEMBERS = [
    member
    for number in range(NUM)
    for member in (
        (f"{'long/' * (40 if number == 3 else 0)}{number:04d}.jpg", os.urandom(40_000)),
        (f"{number:04d}.cls", b"%d" % (number % 3)),
        (f"{number:04d}.json", b'{"x": "\xc3\xa9"}'),
    )
]


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 40 KB, a class and a line of JSON beside each; one name is too long for a header."""
    file = write_shard(tmp_path_factory.mktemp("shard") / "a.tar", MEMBERS)
    with tarfile.open(file, "a") as archive:
        for name, kind, target in (
            ("hard.jpg", tarfile.LNKTYPE, "0001.jpg"),
            ("d", tarfile.DIRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return file


@pytest.fixture
def server(shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setenv("SDCLR_CACHE", str(tmp_path))
    with range_server({"/a.tar": shard.read_bytes()}) as state:
        yield state


def test_members_are_those_of_the_same_shard_on_a_disk(server: RangeServer, shard: Path) -> None:
    address = f"{server.address}/a.tar"
    expected = list(members_on_disk(shard))
    assert {one.kind for one in expected} == {"file", "hard link", "folder"}
    assert indexed_members(address, version_of(address)) == expected
    assert indexed_members(address, version_of(address)) == expected  # from the index


def test_reading_headers_costs_a_part_of_the_shard_and_the_second_time_nothing(
    server: RangeServer, shard: Path
) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    server.asked.clear()
    indexed_members(address, version)
    assert server.num_bytes < 0.15 * shard.stat().st_size
    assert len(server.asked) <= NUM + 4
    server.asked.clear()
    indexed_members(address, version)
    assert server.asked == []


def test_headers_of_small_members_are_read_in_pieces_that_grow(server: RangeServer) -> None:
    file = write_shard(
        Path(os.environ["SDCLR_CACHE"]) / "small.tar",
        [(f"{n:05d}.jpg", bytes(700)) for n in range(900)],
    )
    server.files["/small.tar"] = file.read_bytes()
    address = f"{server.address}/small.tar"
    version = version_of(address)
    server.asked.clear()
    assert len(indexed_members(address, version)) == 900
    assert len(server.asked) <= 12
    assert server.num_bytes <= 1.1 * file.stat().st_size


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_index_is_built_again_with_a_warning(server: RangeServer, damage: str) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    expected = indexed_members(address, version)
    (file,) = (Path(os.environ["SDCLR_CACHE"]) / FOLDER).glob("*.members")
    content = file.read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    file.write_bytes({"cut": content[:-100], "changed": changed, "empty": b""}[damage])
    with pytest.warns(UserWarning, match=r"the index .* is damaged .* and is built again"):
        assert indexed_members(address, version) == expected
    server.asked.clear()
    assert indexed_members(address, version) == expected
    assert server.asked == []


@pytest.mark.parametrize("trouble", ["a file", "no room"])
def test_where_no_index_can_be_kept_a_warning_says_so_and_the_members_are_there(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    expected = indexed_members(address, version)
    monkeypatch.setenv("SDCLR_CACHE", str(tmp_path / trouble))
    if trouble == "a file":
        (tmp_path / trouble).touch()
    else:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(durable_files.files, "write", full)
    with pytest.warns(UserWarning, match="cannot be kept there .*Set SDCLR_CACHE") as said:
        assert [indexed_members(address, version) for _ in range(2)] == [expected] * 2
    assert len(said) == 1
    assert not list(tmp_path.glob(f"{trouble}/**/*.tmp"))


@pytest.mark.parametrize("name", ["SDCLR_CACHE_GB", "SDCLR_REMOTE_RETRIES", "SDCLR_REMOTE_SECONDS"])
def test_a_limit_that_is_no_number_is_a_mistake_of_the_setting_before_any_request(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "many")
    with pytest.raises(ConfigError, match=f"{name} must be a number .*'many'"):
        read_shards(Address(server.address), ["a.tar"])
    assert server.asked == []


def test_an_index_of_another_state_is_built_again(server: RangeServer, tmp_path: Path) -> None:
    address = f"{server.address}/a.tar"
    indexed_members(address, version_of(address))
    server.files["/a.tar"] = write_shard(tmp_path / "b.tar", [("other.jpg", b"x")]).read_bytes()
    assert [one.name for one in indexed_members(address, version_of(address))] == ["other.jpg"]


def test_of_two_processes_one_builds_an_index(server: RangeServer) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    server.asked.clear()
    children = []
    for _ in range(2):
        if not (child := os.fork()):
            os._exit(len(indexed_members(address, version)) != len(MEMBERS) + 2)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert len(server.asked) <= NUM + 4


def test_a_build_that_is_cut_off_leaves_nothing_and_the_next_is_whole(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    monkeypatch.setenv("SDCLR_REMOTE_RETRIES", "0")
    server.faults[:] = ["busy"] + [None] * 5
    with pytest.raises(RemoteError):
        indexed_members(address, version)
    assert not list((Path(os.environ["SDCLR_CACHE"]) / FOLDER).glob("*.members"))
    assert len(indexed_members(address, version)) == len(MEMBERS) + 2


def test_a_shard_that_is_no_tar_is_a_read_error(server: RangeServer) -> None:
    for name, content in (
        ("/x.tar", b"no tar at all" * 100),
        ("/gz.tar", b"\x1f\x8b" + bytes(600)),
    ):
        server.files[name] = content
        with pytest.raises(tarfile.ReadError):
            indexed_members(server.address + name, version_of(server.address + name))
    cut = server.files["/a.tar"][:300_000]
    server.files["/cut.tar"] = cut
    with pytest.raises(tarfile.ReadError, match="end"):
        indexed_members(f"{server.address}/cut.tar", version_of(f"{server.address}/cut.tar"))
    assert not list((Path(os.environ["SDCLR_CACHE"]) / shard_index.FOLDER).glob("*.members"))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a display says, of work that takes no time, too."""
    monkeypatch.setattr(any_progress, "PATIENCE_SECONDS", 0.0)
    return io.StringIO()


def lines_of_reading(place: Place, shards: list[str], log: io.StringIO) -> list[str]:
    """What a display shows while the images of some shards are looked for, without the times."""
    log.truncate(log.seek(0))
    with Progress(Console(file=log, width=200), now=lambda: 0.0):
        read_shards(place, shards)
    return log.getvalue().splitlines()


def test_indexing_shows_the_bytes_of_all_shards_and_those_of_an_earlier_start(
    server: RangeServer, log: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers_read, "MEGABYTE", 1000)
    photographs = write_shard(tmp_path / "0.tar", MEMBERS[::3])
    server.files |= {f"/{number}.tar": photographs.read_bytes() for number in range(3)}
    place, size = Address(server.address), photographs.stat().st_size
    read_shards(place, ["0.tar"])
    lines = lines_of_reading(place, ["0.tar", "1.tar", "2.tar"], log)
    assert "requesting 3 shards: finished, 3/3 shards, 100 %, took 0:00:00" in lines
    total, begun = 3 * size // 1000, size // 1000
    assert f"indexing 2 shards: {begun}/{total} MB, 33 %" in lines
    assert lines[-1] == f"indexing 2 shards: finished, {total}/{total} MB, 100 %, took 0:00:00"


def test_headers_on_a_disk_are_shown_where_they_take_long(
    log: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "0.tar", MEMBERS[::3])
    lines = lines_of_reading(tmp_path, ["0.tar"], log)
    assert lines[-1].startswith("reading the headers of 1 shards: finished")
    monkeypatch.setattr(any_progress, "PATIENCE_SECONDS", 60.0)
    assert lines_of_reading(tmp_path, ["0.tar"], log) == []


def test_a_server_that_does_not_answer_is_shown_to_be_waited_for(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(any_progress, "PATIENCE_SECONDS", 0.001)
    server.files["/0.tar"] = write_shard(tmp_path / "0.tar", MEMBERS[::3]).read_bytes()
    answers = threading.Event()
    ask = shard_index.read_range
    seen = list[str]()

    def late(*given: Any) -> bytes:
        answers.wait(PATIENCE_SECONDS)
        return ask(*given)

    class Seen(NoProgress):
        def add(self, description: str, total: int, unit: str = "steps", done: int = 0) -> int:
            seen.append(description)
            if "indexing" in description:
                answers.set()
            return 0

    monkeypatch.setattr(shard_index, "read_range", late)
    token = any_progress.opened(Seen())
    try:
        read_shards(Address(server.address), ["0.tar"])
    finally:
        any_progress.closed(token)
    assert "indexing 1 shards" in seen


def test_a_display_hears_of_a_large_shard_while_it_is_indexed(
    server: RangeServer, shard: Path
) -> None:
    address, ends = f"{server.address}/a.tar", list[int]()
    version = version_of(address)
    indexed_members(address, version, ends.append)
    assert len(ends) > NUM / 2
    assert ends == sorted(ends)
    assert ends[-1] == version.size
