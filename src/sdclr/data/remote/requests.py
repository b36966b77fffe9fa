"""One request for some bytes of a file on another machine, and what its answer says of the file. Tries once.

What opens an address (keys, endpoints, proxies) is fsspec's own matter: its configuration and environment. A file
system is opened by the process that asks, at its first request, because its connections do not survive a fork.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from sdclr.addresses import HTTP, Address, with_secrets
from sdclr.data.remote.limits import INDEX_CONNECTIONS, patience_seconds
from sdclr.errors import ConfigError

S3 = ("s3", "s3a")
IN_THIS_PROCESS = ("memory",)
CONNECT_SECONDS = 10.0
"""How long a server may take to accept a connection, over http."""
INSTALL = 'pip install "sdclr[remote]"'


class Answer(NamedTuple):
    """Bytes of a file, which may be fewer than were asked for."""

    content: bytes
    size: int
    """Of the whole file."""
    tag: str
    """Equal for an unchanged file: ETag, or a time of change; empty where the server says neither."""


class GoneError(Exception):
    """There is no such file."""


class ForbiddenError(Exception):
    """It may not be read."""


class OutsideError(Exception):
    """The file does not have the bytes that were asked for."""


class WholeOnlyError(Exception):
    """The server sends whole files alone."""


_opened: dict[tuple[int, str], Any] = {}
_tags: dict[tuple[int, str], tuple[int, str]] = {}


def ask(address: str, start: int, size: int) -> Answer:
    """At most ``size`` bytes from ``start`` on, and the state of the file as the same answer says it.

    Raises the errors of this file, and for what may pass whatever a library raises.
    """
    protocol = Address(address).protocol
    with _known_errors():
        if protocol in HTTP:
            return _ask_http(address, start, size)
        if protocol in S3:
            return _ask_s3(address, start, size)
        return _ask_others(address, start, size)


def file_system(address: str) -> Any:
    """fsspec's file system of an address, of this process. ConfigError where no package reads such addresses."""
    protocol = Address(address).protocol
    key = (os.getpid(), protocol)
    if key not in _opened:
        fsspec = _fsspec()
        try:
            _opened[key] = fsspec.filesystem(protocol, **_options(fsspec, protocol))
        except ValueError:
            known = ", ".join(f"{one}://" for one in ("s3", "https", "file"))
            raise ConfigError(
                f"{address}: addresses {protocol}:// are not known. Give {known} or what fsspec reads besides."
            ) from None
        except ImportError as error:
            raise ConfigError(
                f"{address} cannot be read: {error}. Install what fsspec asks for; for s3:// and https:// that is "
                f"{INSTALL}."
            ) from None
    return _opened[key]


def _options(fsspec: Any, protocol: str) -> dict[str, Any]:
    """As many connections as are used at once, where fsspec's configuration says nothing else: botocore has 10."""
    if protocol not in S3:
        return {}
    configured = fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
    return {"config_kwargs": {"max_pool_connections": INDEX_CONNECTIONS, **configured}}


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError:
        raise ConfigError(
            f"images at addresses (s3://, https://) are read with fsspec, which is not installed: {INSTALL}."
        ) from None
    return fsspec


@contextlib.contextmanager
def _known_errors() -> Iterator[None]:
    """Translate what libraries raise for a file that is not there or not open to us."""
    try:
        yield
    except FileNotFoundError:
        raise GoneError from None
    except PermissionError as error:
        raise ForbiddenError(str(error)) from None
    except Exception as error:
        if "Credentials" in type(error).__name__:  # botocore's, before any request
            raise ForbiddenError(str(error)) from None
        raise


# ---- http


def _ask_http(address: str, start: int, size: int) -> Answer:
    from fsspec.asyn import sync

    files = file_system(address)
    return sync(files.loop, _get, files, with_secrets(address), start, size)


async def _get(files: Any, url: str, start: int, size: int) -> Answer:
    import aiohttp

    session = await files.set_session()
    given = dict(files.kwargs)
    # a body that was packed on the way has other bytes than those that were asked for
    headers = {"Accept-Encoding": "identity", **given.pop("headers", {})}
    headers["Range"] = f"bytes={start}-{start + size - 1}"
    patience = aiohttp.ClientTimeout(
        total=None,
        sock_connect=min(patience_seconds(), CONNECT_SECONDS),
        sock_read=patience_seconds(),
    )
    given.setdefault("timeout", patience)
    async with session.get(_as_given(files, url), headers=headers, **given) as answer:
        whole = _size_of_whole(answer, start, size)
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        content = bytearray()
        # the connection may end early: what has come is kept
        with contextlib.suppress(aiohttp.ClientPayloadError, ConnectionError, TimeoutError):
            async for piece in answer.content.iter_any():
                content += piece
                if len(content) >= size:
                    break
        return Answer(bytes(content[:size]), whole, tag)


def _as_given(files: Any, url: str) -> Any:
    """An address that is encoded already is not encoded anew: what was signed are its very letters."""
    import yarl  # aiohttp's own

    is_encoded = "%" in url and url.isascii() and " " not in url
    return yarl.URL(url, encoded=True) if is_encoded else files.encode_url(url)


def _size_of_whole(answer: Any, start: int, size: int) -> int:
    """The size of a file by the head of an answer; raises before any of a body that was not asked for is read."""
    status = answer.status
    if status in (404, 410):
        raise GoneError
    if status in (401, 403, 407):
        raise ForbiddenError(f"the server answers {status} {answer.reason}")
    if status == 416:
        raise OutsideError
    if status == 200:
        length = answer.headers.get("Content-Length", "")
        if start == 0 and length.isdigit() and int(length) <= size:
            return int(length)
        raise WholeOnlyError
    if answer.headers.get("Content-Encoding", "identity") not in ("identity", ""):
        raise OSError(f"the server packs what it sends ({answer.headers['Content-Encoding']})")
    span, _, whole = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    if status != 206 or not whole.isdigit() or not span.startswith(f"{start}-"):
        raise OSError(f"the server answers {status} {answer.reason}")
    return int(whole)


# ---- s3


def _ask_s3(address: str, start: int, size: int) -> Answer:
    from fsspec.asyn import sync

    files = file_system(address)
    bucket, key, version = files.split_path(address)
    if not key:
        raise GoneError
    asked = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{start + size - 1}"}
    if version:
        asked["VersionId"] = version
    try:
        answer = files.call_s3("get_object", **asked)
    except OSError as error:
        if "InvalidRange" in str(error.__cause__ or error) or "range" in str(error).lower():
            raise OutsideError from None
        raise
    return sync(files.loop, _body, answer, size)


async def _body(answer: Any, size: int) -> Answer:
    import aiohttp

    whole = str(answer.get("ContentRange", "")).rpartition("/")[2]
    num_bytes = int(whole) if whole.isdigit() else int(answer["ContentLength"])
    content = bytearray()
    body = answer["Body"]
    try:
        if not whole.isdigit() and num_bytes > size:
            raise WholeOnlyError
        with contextlib.suppress(aiohttp.ClientPayloadError, ConnectionError, TimeoutError):
            while len(content) < size and (piece := await body.read(size - len(content))):
                content += piece
    finally:
        body.close()
    return Answer(bytes(content), num_bytes, str(answer.get("ETag", "")))


# ---- all others


def _ask_others(address: str, start: int, size: int) -> Answer:
    """By fsspec's own range requests. Where a file is of another process, its state is asked for once a process."""
    files, key = file_system(address), (os.getpid(), address)
    if key not in _tags or Address(address).protocol in IN_THIS_PROCESS:
        facts = files.info(address)
        if facts.get("type") == "directory" or facts.get("size") is None:
            raise GoneError
        _tags[key] = int(facts["size"]), _tag_of(facts)
    whole, tag = _tags[key]
    if start >= whole:
        return Answer(b"", whole, tag)
    end = min(start + size, whole)
    return Answer(bytes(files.cat_file(address, start=start, end=end)), whole, tag)


def forget(address: str) -> None:
    """Ask for the state of the file again before it is read the next time."""
    _tags.pop((os.getpid(), address), None)


TAGS = (
    *("ETag", "etag", "md5Hash", "generation", "content_md5", "blob_id"),
    *("mtime", "LastModified", "last_modified", "updated", "created"),
)
"""What file systems call a number or a time that changes with a file; the first that is there counts."""


def _tag_of(facts: dict[str, Any]) -> str:
    found = (str(facts[name]) for name in TAGS if facts.get(name))
    return next(found, "")


def names_below(address: str) -> list[str]:
    """The names of all entries of a folder. ConfigError where the server has no folders (http)."""
    if Address(address).protocol in HTTP:
        raise ConfigError(
            f"{address}: a web server has no list of its files. Name the shards, as in "
            f"{address.rstrip('/')}/train-{{000..146}}.tar."
        )
    files = file_system(address)
    with _known_errors():
        found = files.ls(address, detail=False)
    return sorted(str(name).rstrip("/").rpartition("/")[2] for name in found)
