"""Bytes of a file on another machine, requested as often as necessary, and never those of another state of the file."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from sdclr.addresses import redacted
from sdclr.data.look_ahead import abandoned
from sdclr.data.remote import requests
from sdclr.data.remote.limits import num_retries
from sdclr.data.remote.requests import (
    Answer,
    ForbiddenError,
    GoneError,
    OutsideError,
    UnfitError,
    ask,
    forget,
)
from sdclr.errors import MissingInputError, RemoteError, SdclrError
from sdclr.safe_text import shown

T = TypeVar("T")
FIRST_PAUSE_SECONDS = 0.5
"""The pause before the second try; each further one is twice as long."""
LONGEST_PAUSE_SECONDS = 30.0
_FIRST_BYTES = 512
_jitter = random.SystemRandom()  # no random number of a run is used up


class Version(NamedTuple):
    """The state of a file."""

    size: int
    """In bytes."""
    tag: str
    """Equal while the file is unchanged: the server's ETag, or its time of change."""

    @property
    def number(self) -> int:
        """63 bits that identify the state, in place of a local file's time of change."""
        digest = hashlib.blake2b(f"{self.size} {self.tag}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1


def version_of(address: str) -> Version:
    """The state of a file now. MissingInputError where there is none, RemoteError where the server cannot be read."""
    forget(address)
    try:
        answer = _patiently(address, 0, _FIRST_BYTES)
    except GoneError:
        raise MissingInputError(
            f"shard {shown(address)} does not exist. Restore it, or leave it out of the range of shards."
        ) from None
    except OutsideError:  # of an empty file
        return Version(0, "")
    return Version(answer.size, answer.tag)


def read_range(address: str, version: Version, start: int, size: int) -> bytes:
    """Exactly ``size`` bytes from ``start`` on, of a file in the state ``version``.

    Short answers are completed, failed requests repeated. RemoteError that names the file where it is missing, has
    changed, may not be read, or cannot be read after all tries.
    """
    content = bytearray()
    while len(content) < size:
        try:
            answer = _patiently(address, start + len(content), size - len(content))
        except GoneError:
            raise RemoteError(
                f"shard {shown(address)} has vanished since it was indexed. Restore it, and give the same command "
                "again."
            ) from None
        except OutsideError:
            raise _changed(address, version, "its end") from None
        if (answer.size, answer.tag) != version:
            what = f"its size ({version.size:,} bytes, now {answer.size:,})"
            what = (
                what
                if answer.size != version.size
                else f"its tag ({version.tag}, now {answer.tag})"
            )
            raise _changed(address, version, what)
        content += answer.content
    return bytes(content)


def names_below(address: str) -> list[str]:
    """The names of all entries of a folder, in their order. MissingInputError where there is none."""

    def listed() -> list[str]:
        return requests.names_below(address)

    try:
        return _repeated(address, listed)
    except GoneError:
        raise MissingInputError(
            f"{shown(address)} does not exist: no such folder or bucket."
        ) from None


def _changed(address: str, version: Version, what: str) -> RemoteError:
    return RemoteError(
        f"shard {shown(address)} has changed since it was indexed: {shown(what)}. Restore it to continue this run; a "
        "new run reads it as it is now."
    )


def _patiently(address: str, start: int, size: int) -> Answer:
    """An answer with at least one byte, after as many tries as are allowed."""

    def asked() -> Answer:
        answer = ask(address, start, size)
        if not answer.content and answer.size > start:
            raise OSError("the server sends no bytes")
        return answer

    return _repeated(address, asked)


def _repeated(address: str, attempt: Callable[[], T]) -> T:
    """What ``attempt`` returns; it is repeated after a failure that may be temporary."""
    tries, cause = num_retries() + 1, ""
    for number in range(tries):
        if number:
            _pause(number)
        try:
            return attempt()
        except (GoneError, OutsideError, SdclrError):
            raise
        except ForbiddenError as error:
            raise RemoteError(
                f"{shown(address)} may not be read: {shown(redacted(str(error)))}. Give this machine the right "
                "to, as fsspec takes it (docs/data.md); a signed address has to be given whole, with its query."
            ) from None
        except UnfitError as error:
            raise RemoteError(
                f"{shown(address)} cannot be read: {shown(redacted(str(error)))}. Correct the address if it is wrong; "
                "else copy the shards to a disk, or to a server that sends ranges."
            ) from None
        # whatever a library raises for a bad connection or a busy server
        except Exception as error:
            cause = redacted(str(error)) or type(error).__name__
    raise RemoteError(
        f"{shown(address)} cannot be read after {tries} tries: {shown(cause)}. Correct the address if it is "
        "wrong, else give the same command again when the server answers."
    )


def _pause(number: int) -> None:
    """Wait longer after each failure, with jitter, so that clients whose requests failed do not retry together."""
    longest = min(FIRST_PAUSE_SECONDS * 2 ** (number - 1), LONGEST_PAUSE_SECONDS)
    if abandoned().wait(longest * _jitter.uniform(0.5, 1.0)):
        raise RemoteError("this shard is no longer waited for.")
