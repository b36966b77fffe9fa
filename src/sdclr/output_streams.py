"""Standard output and error that never end a command: unread, full, closed, or unable to write a sign.

A log viewer that is closed, or a full log disk, makes a stream go quiet, and work goes on. What a stream's encoding
lacks is written with the signs it has.
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
    """Writes to another text stream until that fails; from then on it writes nothing, and ``failure`` says why."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream: TextIO = io.StringIO() if stream is None else stream
        # None: it was closed before this process began
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
            # what it still holds is written, and fails, once more when the interpreter ends
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
        """Whether it failed because nobody reads it any more, or was closed from the start: no loss to anybody."""
        return self.failure is not None and self.failure.errno in (
            errno.EPIPE,
            errno.EBADF,
            errno.ECONNRESET,
        )


def endure() -> tuple[EnduringStream, EnduringStream]:
    """Put enduring streams in the place of sys.stdout and sys.stderr; returns them."""
    _open_missing_descriptors()
    out = sys.stdout if isinstance(sys.stdout, EnduringStream) else EnduringStream(sys.stdout)
    err = sys.stderr if isinstance(sys.stderr, EnduringStream) else EnduringStream(sys.stderr)
    sys.stdout, sys.stderr = out, err
    return out, err


def _open_missing_descriptors() -> None:
    """A file opened later must not become number 1 or 2: what other libraries print would go into it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != number:
                    os.close(opened)
