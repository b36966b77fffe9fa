"""Standard output and error that never end a command: unread, full, closed, or unable to write a character.

When a log viewer is closed, or a log disk is full, a stream goes quiet and work continues. Characters that a stream's
encoding lacks are replaced by those it has.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from typing import TextIO

_ERRORS = "sdclr.closest_signs"
_CLOSEST = {
    "±": "+-", "≠": "!=", "≤": "<=", "≥": ">=", "×": "x", "·": "*", "−": "-", "–": "-", "—": "-", "…": "...",
    "“": '"', "”": '"', "‘": "'", "’": "'", "→": "->", "█": "#", "━": "-", "─": "-", "│": "|", "╸": "-", "╺": "-",
}  # fmt: skip


def _closest_signs(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    written = (
        _CLOSEST.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in lacking
    )
    return "".join(written), error.end


codecs.register_error(_ERRORS, _closest_signs)


class EnduringStream(io.TextIOBase):
    """Writes to another text stream until that fails; from then on it writes nothing, and ``failure`` is the reason."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream: TextIO = io.StringIO() if stream is None else stream
        # None: it was closed before this process started
        self.failure: OSError | None = (
            OSError(errno.EBADF, "it is closed") if stream is None else None
        )
        with contextlib.suppress(AttributeError, ValueError, OSError, LookupError):
            if self._stream.errors in ("strict", "surrogateescape"):
                self._stream.reconfigure(errors=_ERRORS)  # type: ignore[attr-defined]

    def write(self, text: str) -> int:
        if self.failure is None:
            try:
                self._write(text)
            except (OSError, ValueError) as error:  # ValueError: the stream is closed
                self._fail(error)
        return len(text)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # of a stream whose errors cannot be set
            encoding = getattr(self._stream, "encoding", None) or "ascii"
            self._stream.write(text.encode(encoding, _ERRORS).decode(encoding))

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._fail(error)

    def _fail(self, error: OSError | ValueError) -> None:
        self.failure = error if isinstance(error, OSError) else OSError(errno.EBADF, "it is closed")
        if self._stream in (sys.__stdout__, sys.__stderr__):
            # its buffer is written once more when the interpreter ends, and would fail again
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def isatty(self) -> bool:
        with contextlib.suppress(ValueError, OSError):
            return self.failure is None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return _ERRORS

    @property
    def unread(self) -> bool:
        """Whether it failed because it is not read any more, or was closed from the start, so that nothing is lost."""
        return self.failure is not None and self.failure.errno in (
            errno.EPIPE,
            errno.EBADF,
            errno.ECONNRESET,
        )


def endure() -> tuple[EnduringStream, EnduringStream]:
    """Replace sys.stdout and sys.stderr by enduring streams; returns them."""
    _open_missing_descriptors()
    out = sys.stdout if isinstance(sys.stdout, EnduringStream) else EnduringStream(sys.stdout)
    err = sys.stderr if isinstance(sys.stderr, EnduringStream) else EnduringStream(sys.stderr)
    sys.stdout, sys.stderr = out, err
    return out, err


def _open_missing_descriptors() -> None:
    """Open missing descriptors: a file opened later must not become number 1 or 2, or libraries would print into it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != number:
                    os.close(opened)
