"""Addresses of data on other machines (``s3://bucket/train.tar``), kept apart from paths, and without their secrets.

A signed query or a password in an address gives access to everyone who reads it. So it is removed as soon as an address
arrives, and kept in the memory of this process and of the workers that it starts: settings, messages, run folders and
caches contain the address without it.
Opens nothing.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_IN_A_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
HTTP = ("http", "https")


class _Secret(NamedTuple):
    user: str
    """USER:PASSWORD@, or empty."""
    query: str
    """?KEY=VALUE, or empty."""


_secrets: dict[str, _Secret] = {}


@dataclass(frozen=True)
class Address:
    """Where data are on another machine, without secrets; it behaves like a path of that name that is not on a disk.

    >>> shard = Address("s3://bucket/photos/train-000.tar")
    >>> shard.suffix, shard.name, str(shard.parent), shard.is_dir(), os.fspath(shard.parent / "x.tar")
    ('.tar', 'train-000.tar', 's3://bucket/photos', False, 's3://bucket/photos/x.tar')
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def __fspath__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> Address:
        return Address(f"{self.text}{'' if self.text.endswith('://') else '/'}{name}")

    @property
    def protocol(self) -> str:
        """s3, https and so on."""
        return self.text.partition("://")[0].lower()

    @property
    def name(self) -> str:
        """The part after the last slash; empty for a folder that is written with a slash at the end."""
        return self.text.partition("://")[2].rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Address:
        """The folder: the part before the last slash; in a bucket two slashes are not one."""
        folder = self.text[: len(self.text) - len(self.name)]
        return Address(folder if folder.endswith("://") else folder.removesuffix("/"))

    @property
    def server(self) -> str:
        """The server or bucket; empty where the address names none."""
        return self.text.partition("://")[2].partition("/")[0]

    def exists(self) -> bool:
        """Whether it is on a disk: never."""
        return False

    is_dir = is_file = exists


Place = Path | Address


def is_address(text: str | os.PathLike[str]) -> bool:
    """Whether a text is an address, not a path; addresses of files (``file:///data/x.tar``) are paths.

    >>> is_address("https://host/a.tar"), is_address("photos/a.tar"), is_address("file:///data/a.tar")
    (True, False, False)
    """
    found = _ADDRESS.match(os.fspath(text))
    return found is not None and found[1].lower() not in ("file", "local")


def local_path(text: str) -> str:
    """A path unchanged, or the path of a ``file://`` address.

    >>> local_path("file:///data/my%20shards/a.tar"), local_path("photos/a.tar")
    ('/data/my shards/a.tar', 'photos/a.tar')
    """
    found = _ADDRESS.match(text)
    if found is None or is_address(text):
        return text
    rest = text[found.end() :].removeprefix("localhost/")
    return unquote(rest if rest.startswith("/") else f"/{rest}")


def without_secrets(text: str) -> str:
    """An address without query and password, which this process remembers for reading; other texts unchanged.

    >>> without_secrets("https://me:word@host/a.tar?signature=1")
    'https://host/a.tar'
    >>> without_secrets("HTTPS://host/a.tar")  # one place, one name
    'https://host/a.tar'
    """
    if not is_address(text):
        return text
    clean, secret = _apart(text)
    if secret != _Secret("", ""):
        before = _secrets.get(clean, secret)
        if before.query and secret.query and before.query != secret.query:
            warnings.warn(
                f"{clean} was given with another query before, and the new one is used from now on. A query "
                "is taken for a signature: two files whose addresses differ only by it count as one file.",
                stacklevel=2,
            )
        _secrets[clean] = secret
    return clean


def with_secrets(address: str) -> str:
    """The address to request from a server."""
    secret = _secrets.get(address)
    if secret is None:
        return address
    protocol, _, rest = address.partition("://")
    return f"{protocol}://{secret.user}{rest}{secret.query}"


def share_secrets(address: str, others: list[str]) -> None:
    """Use the secrets of ``address`` for ``others``, too: the shards of one pattern."""
    if (secret := _secrets.get(address)) is not None:
        _secrets.update(dict.fromkeys(others, secret))


def all_secrets() -> dict[str, tuple[str, str]]:
    """The secrets of this process, for another one that it starts; they may go through a pipe, but not into a file."""
    return {address: (secret.user, secret.query) for address, secret in _secrets.items()}


def remember_secrets(secrets: Mapping[str, Sequence[str]]) -> None:
    """Add the secrets of :func:`all_secrets` from another process."""
    _secrets.update({address: _Secret(*secret) for address, secret in secrets.items()})


def redacted(text: str) -> str:
    """A text without the queries and passwords of the addresses in it.

    >>> redacted("GET https://host/a.tar?signature=1: 403")
    'GET https://host/a.tar 403'
    """
    return _IN_A_TEXT.sub(lambda found: _apart(found[0])[0], text)


def _apart(text: str) -> tuple[str, _Secret]:
    protocol, _, rest = text.partition("://")
    query = ""
    if protocol.lower() in HTTP:  # a name in a bucket may have a ? in it
        rest, mark, query = rest.partition("#")[0].partition("?")
        query = mark + query
    server, slash, path = rest.partition("/")
    if "@" in path and _is_cut_password(server):
        whole, _, rest = rest.rpartition("@")
        server, slash, path = rest.partition("/")
        server = f"{whole}@{server}"
    user, at, server = server.rpartition("@")
    return f"{protocol.lower()}://{server}{slash}{path}", _Secret(user + at, query)


def _is_cut_password(server: str) -> bool:
    """Whether USER:PASSWORD@ was cut at a slash in the password: the part after the colon is not a port."""
    _, colon, port = server.rpartition(":")
    return bool(colon) and not port.endswith("]") and not port.isdigit()
