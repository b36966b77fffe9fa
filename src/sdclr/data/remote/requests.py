"""One request for some bytes of a file on another machine, and the state of the file in its answer. Tries once.

How an address is opened (keys, endpoints, proxies) is left to fsspec: its configuration and environment. A file system
is opened by the process that makes the request, at its first one, because its connections do not survive a fork.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple

from sdclr.addresses import HTTP, Address, redacted, with_secrets
from sdclr.data.remote.limits import INDEX_CONNECTIONS, patience_seconds
from sdclr.errors import ConfigError
from sdclr.safe_text import shown

S3 = ("s3", "s3a")
IN_THIS_PROCESS = ("memory",)
CONNECT_SECONDS = 10.0
"""How long a server may take to accept a connection, over http."""
WRONG_SETTINGS = frozenset(
    {
        *("ProfileNotFound", "ConfigNotFound", "ConfigParseError", "InvalidConfigError"),
        *("NoRegionError", "InvalidRegionError", "UnknownSignatureVersionError"),
        *("InvalidProxiesConfigError", "InvalidS3AddressingStyleError", "InvalidRetryModeError"),
    }
)
"""Classes of botocore's errors about its own settings."""
PASSING = (408, 421, 425, 429)
"""HTTP refusals that another try may avoid: too slow, another connection, too early, too many."""
INSTALL = 'pip install "sdclr[remote]"'


class Answer(NamedTuple):
    """Bytes of a file, which may be fewer than were requested."""

    content: bytes
    size: int
    """Of the whole file."""
    tag: str
    """Equal for an unchanged file: ETag, or a time of change; empty where the server sends neither."""


class GoneError(Exception):
    """There is no such file."""


class ForbiddenError(Exception):
    """It may not be read."""


class OutsideError(Exception):
    """The file does not have the bytes that were requested."""


class UnfitError(Exception):
    """The server's answer is one that no further try improves; the message describes it."""


class WholeOnlyError(UnfitError):
    """The server only sends whole files."""

    def __init__(self) -> None:
        super().__init__("its server sends whole files only, not the part requested (HTTP Range)")


_opened: dict[tuple[int, str, str], Any] = {}
"""By process, protocol, and server where a file system belongs to one server."""
_tags: dict[tuple[int, str], tuple[int, str]] = {}


def ask(address: str, start: int, size: int) -> Answer:
    """At most ``size`` bytes from ``start`` on, and the state of the file from the same answer.

    Raises the errors of this file, and for temporary failures whatever a library raises.
    """
    protocol = Address(address).protocol
    with _known_errors(address):
        if protocol in HTTP:
            return _ask_http(address, start, size)
        if protocol in S3:
            return _ask_s3(address, start, size)
        return _ask_others(address, start, size)


def file_system(address: str) -> Any:
    """This process's fsspec file system for an address. ConfigError where no package reads such addresses."""
    protocol = Address(address).protocol
    server = Address(address).server if protocol not in (*HTTP, *S3) else ""
    key = (os.getpid(), protocol, server)
    if key not in _opened:
        fsspec = _fsspec()
        try:
            _opened[key] = fsspec.filesystem(protocol, **_options(fsspec, protocol, address))
        except ValueError:
            known = ", ".join(f"{one}://" for one in ("s3", "https", "file"))
            raise ConfigError(
                f"{address}: addresses {protocol}:// are not known. Give {known} or another one that fsspec reads."
            ) from None
        except TypeError as error:
            raise _wrong_settings(address, error) from None
        except ImportError as error:
            raise ConfigError(
                f"{address} cannot be read: {error}. Install what fsspec requires; for s3:// and https:// that is "
                f"{INSTALL}."
            ) from None
    return _opened[key]


def _options(fsspec: Any, protocol: str, address: str) -> dict[str, Any]:
    """The options of an address's server; for s3, as many connections as are used at once.

    botocore's default is 10. fsspec's configuration takes precedence.
    """
    if protocol in HTTP:
        return {}
    if protocol not in S3:  # a server and a user, of ftp:// and its like
        kind = fsspec.get_filesystem_class(protocol)
        found: dict[str, Any] = kind._get_kwargs_from_urls(with_secrets(address))
        return found
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
def _known_errors(address: str) -> Iterator[None]:
    """Translate what libraries raise for a file that is missing or may not be read, or for their own settings."""
    try:
        yield
    except FileNotFoundError:
        raise GoneError from None
    except PermissionError as error:
        raise ForbiddenError(str(error)) from None
    except Exception as error:
        if "Credentials" in type(error).__name__:  # botocore's, before any request
            raise ForbiddenError(str(error)) from None
        if _is_of_settings(error):
            raise _wrong_settings(address, error) from None
        raise


def _is_of_settings(error: Exception) -> bool:
    """Whether a library refuses its settings, by the class of the error or its message."""
    words = {TypeError: "unexpected keyword argument", ValueError: "Invalid endpoint"}
    return type(error).__name__ in WRONG_SETTINGS or words.get(type(error), "\0") in str(error)


def _wrong_settings(address: str, error: Exception) -> ConfigError:
    """Settings for opening an address are not part of it, and a retry does not correct them."""
    return ConfigError(
        f"{shown(redacted(address))} cannot be opened: {shown(redacted(str(error)), 300)}. Correct it where this "
        "machine has it: AWS_* in the environment, AWS's files, or fsspec's configuration (docs/data.md)."
    )


# ---- http


def _ask_http(address: str, start: int, size: int) -> Answer:
    from fsspec.asyn import sync

    files = file_system(address)
    return sync(files.loop, _get, files, with_secrets(address), start, size)


async def _get(files: Any, url: str, start: int, size: int) -> Answer:
    import aiohttp

    session = await files.set_session()
    given = dict(files.kwargs)
    # a body that was compressed on the way has other bytes than those that were requested
    headers = {"Accept-Encoding": "identity", **given.pop("headers", {})}
    headers["Range"] = f"bytes={start}-{start + size - 1}"
    patience = aiohttp.ClientTimeout(
        total=None,
        sock_connect=min(patience_seconds(), CONNECT_SECONDS),
        sock_read=patience_seconds(),
    )
    given.setdefault("timeout", patience)
    async with (
        _http_errors(url),
        session.get(_as_given(files, url), headers=headers, **given) as answer,
    ):
        whole = _size_of_whole(answer, start, size)
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        content = bytearray()
        # the connection may end early: what has arrived is kept
        with contextlib.suppress(aiohttp.ClientPayloadError, ConnectionError, TimeoutError):
            async for piece in answer.content.iter_any():
                content += piece
                if len(content) >= size:
                    break
        return Answer(bytes(content[:size]), whole, tag)


@contextlib.asynccontextmanager
async def _http_errors(url: str) -> AsyncIterator[None]:
    """Describe what aiohttp finds wrong with an address, a server's name or a chain of redirects."""
    import aiohttp

    try:
        yield
    except aiohttp.TooManyRedirects:
        raise UnfitError("its server redirects without end") from None
    except aiohttp.ClientConnectorDNSError as error:
        raise OSError(
            f"there is no server called {error.host}, or this machine does not find it ({error.strerror})"
        ) from None
    except ValueError as error:  # InvalidURL is one
        clean = redacted(url)
        raise ConfigError(
            f"{clean} is not the address of a web server: {redacted(str(error))}."
        ) from None


def _as_given(files: Any, url: str) -> Any:
    """An address that is encoded already is not encoded again: its signature covers its exact letters."""
    import yarl  # aiohttp's own

    is_encoded = "%" in url and url.isascii() and " " not in url
    return yarl.URL(url, encoded=True) if is_encoded else files.encode_url(url)


def _size_of_whole(answer: Any, start: int, size: int) -> int:
    """The size of a file from the headers of an answer; raises before any of a body that was not requested is read."""
    status = answer.status
    if status in (404, 410):
        raise GoneError
    if status in (401, 403, 407):
        raise ForbiddenError(f"the server answers {status} {answer.reason}")
    if status == 416:
        raise OutsideError
    if 400 <= status < 500 and status not in PASSING:
        raise UnfitError(f"its server answers {status} {answer.reason}")
    if status == 200:
        if answer.content_type == "text/html":
            raise UnfitError(
                "its server sends a web page instead, perhaps a login page or a refusal"
            )
        length = answer.headers.get("Content-Length", "")
        if start == 0 and length.isdigit() and int(length) <= size:
            return int(length)
        raise WholeOnlyError
    if answer.headers.get("Content-Encoding", "identity") not in ("identity", ""):
        packed = answer.headers["Content-Encoding"]
        raise UnfitError(f"its server compresses what it sends ({packed}), though asked not to")
    span, _, whole = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    if status == 206 and whole == "*":
        raise UnfitError("its server does not report how large the whole file is (Content-Range)")
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
        if _is_outside(error):
            raise OutsideError from None
        raise
    return sync(files.loop, _body, answer, size)


def _is_outside(error: OSError) -> bool:
    """Whether a store refused a range that its file does not have; messages of refusals contain arbitrary names."""
    response = getattr(error.__cause__, "response", None)
    if isinstance(response, Mapping):
        return str(response.get("Error", {}).get("Code", "")) in ("InvalidRange", "416")
    return not isinstance(error, PermissionError | FileNotFoundError) and (
        "requested range" in str(error).lower()
    )


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
    """Use fsspec's own range requests. The state of a file outside this process is requested once per process."""
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
    """Request the state of the file again before it is next read."""
    _tags.pop((os.getpid(), address), None)


TAGS = (
    *("ETag", "etag", "md5Hash", "generation", "content_md5", "blob_id"),
    *("mtime", "LastModified", "last_modified", "updated", "created"),
)
"""File systems' names for a number or a time that changes with a file; the first that is present counts."""


def _tag_of(facts: dict[str, Any]) -> str:
    found = (str(facts[name]) for name in TAGS if facts.get(name))
    return next(found, "")


def names_below(address: str) -> list[str]:
    """The names of all entries of a folder."""
    files = file_system(address)
    with _known_errors(address):
        found = files.ls(address, detail=False)
    return sorted(str(name).rstrip("/").rpartition("/")[2] for name in found)
