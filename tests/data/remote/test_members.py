"""Members are their bytes, from the server or the disk; neighbours cost few requests, and any order no more bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from range_server import RangeServer, range_server
from sdclr.data.remote import members
from sdclr.data.remote.members import HEAD, RemoteMember, read_member
from sdclr.data.remote.ranges import version_of

SIZE = 3_000
CONTENT = os.urandom(64 * SIZE)
PLACES = [(SIZE * number, SIZE - 200) for number in range(64)]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setenv("SDCLR_CACHE", str(tmp_path))
    members._windows.clear()
    with range_server({"/a.tar": CONTENT}) as state:
        yield state


def test_members_in_their_order_cost_few_requests_and_at_most_one_reading(
    server: RangeServer,
) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    server.asked.clear()
    for start, size in PLACES:
        assert read_member(address, version, start, size) == CONTENT[start : start + size]
    assert len(server.asked) <= 8
    assert server.num_bytes <= len(CONTENT)


def test_members_in_any_order_cost_their_own_bytes_and_no_more(server: RangeServer) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    server.asked.clear()
    places = PLACES[::-1]  # none follows another
    for start, size in places:
        assert read_member(address, version, start, size) == CONTENT[start : start + size]
    assert server.num_bytes == sum(size for _, size in places)


def test_what_was_read_once_is_not_asked_for_again(server: RangeServer) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    first = [read_member(address, version, *place) for place in PLACES]
    members._windows.clear()
    server.asked.clear()
    assert [read_member(address, version, *place) for place in PLACES] == first
    assert server.asked == []


def test_of_another_state_nothing_that_was_kept_is_used(server: RangeServer) -> None:
    address = f"{server.address}/a.tar"
    read_member(address, version_of(address), 0, 10)
    server.files["/a.tar"] = CONTENT[::-1]
    assert read_member(address, version_of(address), 0, 10) == CONTENT[::-1][:10]


def test_windows_hold_a_bounded_number_of_bytes(server: RangeServer) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    for start, size in PLACES[::2] + PLACES[1::2]:
        read_member(address, version, start, size)
    assert len(members._windows) <= members.MOST_WINDOWS
    held = sum(len(window.content) for window in members._windows.values())
    assert held <= members.MOST_WINDOWS * members.LARGEST_WINDOW


def test_a_member_is_a_file_whose_header_alone_may_be_read(server: RangeServer) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    server.asked.clear()
    whole = 20 * SIZE
    with io.BufferedReader(RemoteMember(address, version, 1_000, whole, head=True)) as file:
        assert server.asked == []
        assert file.read(4_096) == CONTENT[1_000:5_096]
        assert server.num_bytes == HEAD
        file.seek(0)
        assert file.read() == CONTENT[1_000 : 1_000 + whole]
        file.seek(-5, io.SEEK_END)
        assert file.read(100) == CONTENT[whole + 995 : whole + 1_000]
    assert server.num_bytes == HEAD + whole
