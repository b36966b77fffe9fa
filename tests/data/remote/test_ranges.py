"""Ranges of files on other machines are those bytes or an error that names the file, whatever a server does."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from patience import PATIENCE_SECONDS
from range_server import Fault, RangeServer, range_server
from sdclr.addresses import without_secrets
from sdclr.config import user_place
from sdclr.data.look_ahead import look_ahead
from sdclr.data.remote import ranges, requests
from sdclr.data.remote.ranges import Version, read_range, version_of
from sdclr.errors import ConfigError, MissingInputError, RemoteError

CONTENT = os.urandom(50_000)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("SDCLR_REMOTE_RETRIES", "3")


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with range_server({"/a.tar": CONTENT}) as state:
        yield state


def test_a_range_is_those_bytes_and_costs_no_others(server: RangeServer) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    assert version.size == len(CONTENT)
    assert read_range(address, version, 700, 1_300) == CONTENT[700:2_000]
    assert read_range(address, version, 49_999, 1) == CONTENT[-1:]
    assert server.num_bytes == 512 + 1_300 + 1


def test_a_file_system_in_memory_is_read_as_a_server_is() -> None:
    fsspec.filesystem("memory").pipe("/ranges/a.tar", CONTENT)
    address = "memory://ranges/a.tar"
    version = version_of(address)
    assert read_range(address, version, 700, 1_300) == CONTENT[700:2_000]
    fsspec.filesystem("memory").pipe("/ranges/a.tar", CONTENT[::-1])
    with pytest.raises(RemoteError, match=r"memory://ranges/a\.tar has changed"):
        read_range(address, version, 700, 1_300)
    fsspec.filesystem("memory").rm("/ranges/a.tar")
    with pytest.raises(RemoteError, match=r"memory://ranges/a\.tar has vanished"):
        read_range(address, version, 700, 1_300)
    with pytest.raises(MissingInputError, match=r"memory://ranges/a\.tar does not exist"):
        version_of(address)


@pytest.mark.parametrize(
    "faults",
    [["busy"], ["dropped"], ["cut"], ["short"], ["busy", "dropped", "busy"], ["cut"] * 8],
    ids=str,
)
def test_what_may_pass_is_tried_again(server: RangeServer, faults: list[Fault]) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    server.faults[:] = faults
    assert read_range(address, version, 100, 40_000) == CONTENT[100:40_100]
    assert not server.faults


def test_of_a_short_answer_the_rest_alone_is_asked_for(server: RangeServer) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    server.faults[:] = ["cut"]
    read_range(address, version, 1_000, 20_000)
    first, second = server.asked[-2:]
    assert (first.start, first.num_bytes) == (1_000, 10_000)
    assert (second.start, second.num_bytes) == (11_000, 10_000)


def test_tries_end_and_the_error_says_after_how_many(server: RangeServer) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    before = len(server.asked)
    server.faults[:] = ["busy"] * 50
    with pytest.raises(RemoteError, match=r"/a\.tar cannot be read after 4 tries: .*503"):
        read_range(address, version, 0, 10)
    assert len(server.asked) - before == 4


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (200, {"Content-Type": "text/html; charset=utf-8"}, "sends a web page instead"),
        (
            206,
            {"Content-Range": "bytes 0-511/9000", "Content-Encoding": "gzip"},
            r"compresses.*\(gzip\)",
        ),
        (206, {"Content-Range": "bytes 0-511/*"}, "does not report how large the whole file is"),
        (302, {"Location": "/a.tar"}, "redirects without end"),
        (400, {}, "answers 400 Bad Request"),
    ],
)
def test_what_no_further_try_makes_better_is_said_at_once(
    server: RangeServer, status: int, headers: dict[str, str], words: str
) -> None:
    server.instead = status, headers, bytes(512)
    with pytest.raises(RemoteError, match=rf"/a\.tar cannot be read: its server .*{words}"):
        version_of(f"{server.address}/a.tar")
    assert len(server.asked) == 1 or status == 302


def test_a_server_that_has_too_many_requests_is_asked_again(server: RangeServer) -> None:
    server.instead = 429, {}, b""
    with pytest.raises(RemoteError, match=r"/a\.tar cannot be read after 4 tries: .*429"):
        version_of(f"{server.address}/a.tar")
    assert len(server.asked) == 4


@pytest.mark.parametrize("place", ["127.0.0.1:99999", "127.0.0.1:port", "[::1", "me:LET/ME@h:1"])
def test_what_is_no_address_of_a_server_is_a_mistake_of_the_setting(place: str) -> None:
    address = str(user_place(f"http://{place}/a.tar"))
    with pytest.raises(ConfigError, match="is not the address of a web server") as found:
        version_of(address)
    assert "LET" not in str(found.value) + address


def test_a_server_that_nobody_finds_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(RemoteError, match=r"there is no server called host\.invalid.*Correct the"):
        version_of("http://host.invalid/a.tar")


def test_a_file_system_of_one_server_is_told_which_and_who_asks() -> None:
    class Place(MemoryFileSystem):
        protocol = "place"
        cachable = False

        def __init__(self, host: str, username: str) -> None:
            super().__init__()
            self.store = {"/x.tar": self.store[f"/{host}-{username}.tar"]}

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return f"/{path.rpartition('/')[2]}"

        @staticmethod
        def _get_kwargs_from_urls(path: str) -> dict[str, str]:
            user, _, host = path.split("/")[2].partition("@")
            return {"host": host, "username": user} if host else {}

    fsspec.register_implementation("place", Place, clobber=True)
    for number, host in enumerate("ab"):
        fsspec.filesystem("memory").pipe(f"/{host}-me.tar", bytes(number + 1))
        address = str(user_place(f"place://me@{host}/x.tar"))
        assert address == f"place://{host}/x.tar"
        assert version_of(address).size == number + 1
    with pytest.raises(ConfigError, match=r"place://c/x\.tar cannot be opened: .*host"):
        version_of("place://c/x.tar")


def test_pauses_grow_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            return False

    monkeypatch.setattr(ranges, "abandoned", Event)
    monkeypatch.setattr(ranges, "FIRST_PAUSE_SECONDS", 1.0)
    for number in range(1, 10):
        ranges._pause(number)
    longest = [min(2.0**number, ranges.LONGEST_PAUSE_SECONDS) for number in range(9)]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))


def test_a_pause_ends_when_nobody_waits_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "FIRST_PAUSE_SECONDS", 600.0)
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        try:
            ranges._pause(1)
        except RemoteError:
            ended.set()

    def fail() -> None:
        begun.wait(PATIENCE_SECONDS)
        raise ValueError

    with pytest.raises(ValueError):
        list(look_ahead([(0, [fail, work])], num_workers=2))
    assert ended.is_set()


def test_a_server_without_ranges_is_one_error_and_no_download(server: RangeServer) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    server.ignores_ranges = True
    before = len(server.asked)
    for read in (lambda: read_range(address, version, 0, 10), lambda: version_of(address)):
        with pytest.raises(RemoteError, match=r"/a\.tar cannot be read: its server sends whole"):
            read()
    assert len(server.asked) - before == 2  # no try is repeated


def test_a_file_that_is_asked_for_whole_needs_no_ranges(server: RangeServer) -> None:
    server.files["/small.tar"] = CONTENT[:100]
    server.ignores_ranges = True
    version = version_of(f"{server.address}/small.tar")
    assert read_range(f"{server.address}/small.tar", version, 0, 100) == CONTENT[:100]


@pytest.mark.parametrize("now", [CONTENT[::-1], CONTENT + b"x", CONTENT[:20_000], b""], ids=len)
def test_a_file_that_has_changed_is_named(server: RangeServer, now: bytes) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    server.files["/a.tar"] = now
    with pytest.raises(RemoteError, match=r"/a\.tar has changed since it was indexed"):
        read_range(address, version, 30_000, 10)


def test_a_file_that_changes_between_two_answers_is_never_mixed(server: RangeServer) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    server.faults[:] = ["short"]
    answer = requests.ask

    def ask(*arguments: object) -> requests.Answer:
        found = answer(*arguments)  # type: ignore[arg-type]
        server.files["/a.tar"] = CONTENT[::-1]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "ask", ask)
        with pytest.raises(RemoteError, match="has changed"):
            read_range(address, version, 0, 10_000)


def test_a_file_that_is_gone_is_named(server: RangeServer) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    del server.files["/a.tar"]
    with pytest.raises(RemoteError, match=r"/a\.tar has vanished since it was indexed"):
        read_range(address, version, 0, 10)
    with pytest.raises(MissingInputError, match=r"/a\.tar does not exist"):
        version_of(address)


def test_a_signature_opens_a_file_and_is_in_no_message(server: RangeServer) -> None:
    server.query = "signature=LETMEIN"
    address = f"{server.address}/a.tar"
    with pytest.raises(RemoteError, match=r"/a\.tar may not be read: .*403"):
        version_of(address)
    assert without_secrets(f"{address}?signature=LETMEIN") == address
    version = version_of(address)
    assert read_range(address, version, 5, 5) == CONTENT[5:10]
    server.faults[:] = ["dropped"] * 50
    with pytest.raises(RemoteError) as refused:
        read_range(address, version, 5, 5)
    assert "LETMEIN" not in str(refused.value)
    with pytest.warns(UserWarning, match="another query before"):
        without_secrets(f"{address}?signature=WRONG")
    server.faults.clear()
    with pytest.raises(RemoteError) as refused:
        read_range(address, version, 5, 5)
    assert "WRONG" not in str(refused.value)


def test_threads_and_a_forked_process_read_the_same(server: RangeServer, tmp_path: Path) -> None:
    address = f"{server.address}/a.tar"
    version = version_of(address)
    with ThreadPoolExecutor(8) as pool:
        read = [pool.submit(read_range, address, version, 100 * row, 100) for row in range(64)]
        assert b"".join(one.result() for one in read) == CONTENT[:6_400]
    if not (child := os.fork()):
        (tmp_path / "read").write_bytes(read_range(address, version, 7, 9))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "read").read_bytes() == CONTENT[7:16]


def test_an_empty_file_has_a_version(server: RangeServer) -> None:
    server.files["/empty.tar"] = b""
    assert version_of(f"{server.address}/empty.tar") == Version(0, "")


def test_a_protocol_that_nobody_knows_is_a_mistake_of_the_setting() -> None:
    with pytest.raises(
        ConfigError, match=r"nothing://x/a\.tar: addresses nothing:// are not known"
    ):
        version_of("nothing://x/a.tar")


def test_without_fsspec_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_opened", {})
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigError, match=r'pip install "sdclr\[remote\]"'):
        version_of("https://host/a.tar")


def test_a_silent_server_is_left_after_the_seconds_that_were_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SDCLR_REMOTE_SECONDS", "0.1")
    monkeypatch.setenv("SDCLR_REMOTE_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a.tar"
        with pytest.raises(RemoteError, match="cannot be read after 1 tries"):
            version_of(address)


def test_a_signature_is_sent_letter_by_letter(server: RangeServer) -> None:
    server.query = "sig=a%2Fb%2B%7Ec%3D&x=%20"
    address = f"{server.address}/a.tar"
    without_secrets(f"{address}?{server.query}")
    assert read_range(address, version_of(address), 5, 5) == CONTENT[5:10]
