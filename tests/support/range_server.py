"""A web server of a few files in memory that sends ranges, and fails as it is told. No tests."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple

Fault = Literal["busy", "cut", "short", "dropped"]
"""503; a body that ends before it should; a shorter range than was asked for; a connection that closes at once."""


class Asked(NamedTuple):
    """A request that was made."""

    path: str
    query: str
    start: int
    num_bytes: int
    """Sent as its body."""


@dataclass
class RangeServer:
    """What it serves, how it fails, and what it was asked."""

    files: dict[str, bytes]
    """By path, with / in front."""
    address: str = ""
    """http://127.0.0.1:PORT."""
    faults: list[Fault | None] = field(default_factory=list)
    """One for each of the next requests, taken from the end; None: it is answered as it should be."""
    ignores_ranges: bool = False
    instead: tuple[int, dict[str, str], bytes] | None = None
    """Status, headers and body that every request gets."""
    query: str | None = None
    """The query that opens its files; None: they are open."""
    asked: list[Asked] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        """Sent in all bodies."""
        return sum(one.num_bytes for one in self.asked)


@contextlib.contextmanager
def range_server(files: dict[str, bytes]) -> Iterator[RangeServer]:
    """Serves until the block ends."""
    state = RangeServer(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one piece: two would wait for each other

        def do_GET(self) -> None:
            answer(self, state)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:  # the client has gone: that is meant
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        state.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def answer(request: BaseHTTPRequestHandler, state: RangeServer) -> None:
    path, _, query = request.path.partition("?")
    fault = state.faults.pop() if state.faults else None
    if fault == "dropped":
        state.asked.append(Asked(path, query, 0, 0))
        request.close_connection = True
        return
    if state.instead is not None:
        state.asked.append(Asked(path, query, 0, len(state.instead[2])))
        _send(request, *state.instead)
        return
    status = 503 if fault == "busy" else 404 if path not in state.files else 0
    if state.query not in (None, query):
        status = 403
    if status:
        state.asked.append(Asked(path, query, 0, 0))
        _send(request, status, {}, b"")
        return
    content = state.files[path]
    headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}
    start, size = 0, len(content)
    wanted = request.headers.get("Range")
    if wanted is not None and not state.ignores_ranges:
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first)
        if start >= len(content):
            state.asked.append(Asked(path, query, start, 0))
            _send(request, 416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        size = min(int(last) + 1, len(content)) - start
        size = max(size // 2, 1) if fault == "short" else size
        headers["Content-Range"] = f"bytes {start}-{start + size - 1}/{len(content)}"
    sent = max(size // 2, 1) if fault == "cut" else size
    state.asked.append(Asked(path, query, start, sent))
    headers["Content-Length"] = str(size)
    body = content[start : start + sent]
    _send(request, 206 if "Content-Range" in headers else 200, headers, body)
    request.close_connection |= sent < size


def _send(
    request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes
) -> None:
    request.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)
