"""A stream that fails goes quiet; a sign that an encoding lacks is written with those it has."""

from __future__ import annotations

import errno
import io
import os

import pytest
from rich.console import Console

from sdclr.output_streams import EnduringStream
from sdclr.presentation.progress import Progress


class Failing(io.StringIO):
    """Fails after so many writes."""

    def __init__(self, number: int, after: int = 0) -> None:
        super().__init__()
        self.number, self.left = number, after

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF])
def test_a_stream_that_fails_goes_quiet(number: int) -> None:
    under = Failing(number, after=1)
    stream = EnduringStream(under)
    for _ in range(3):
        print("a word", file=stream, end="", flush=True)
    assert under.getvalue() == "a word"
    assert stream.failure is not None
    assert stream.unread == (number in (errno.EPIPE, errno.EBADF))


def test_a_closed_stream_goes_quiet() -> None:
    under = io.StringIO()
    under.close()
    stream = EnduringStream(under)
    print("a word", file=stream, flush=True)
    assert stream.unread
    assert not stream.isatty()


def test_a_stream_that_was_never_there_is_quiet() -> None:
    stream = EnduringStream(None)
    print("a word", file=stream, flush=True)
    assert stream.unread
    assert not stream.isatty()
    with Progress() as progress:
        progress.print("a word")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_text_can_be_written_in_every_encoding(encoding: str) -> None:
    raw = io.BytesIO()
    stream = EnduringStream(io.TextIOWrapper(raw, encoding=encoding))
    print("± ≠ 名 \udcff", file=stream, flush=True)
    assert stream.failure is None
    written = raw.getvalue().decode(encoding)
    assert written == {
        "ascii": "+- != \\u540d \\udcff\n",
        "latin-1": "± != \\u540d \\udcff\n",
        "cp1252": "± != \\u540d \\udcff\n",
        "utf-8": "± ≠ 名 \\udcff\n",
    }[encoding].replace("\n", os.linesep)


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_that_nobody_can_read_does_not_end_the_work(terminal: bool) -> None:
    console = Console(file=EnduringStream(Failing(errno.EPIPE)), force_terminal=terminal)  # type: ignore[arg-type]
    with Progress(console) as progress:
        task = progress.add("training", total=3)
        for _ in range(3):
            progress.advance(task)
            progress.print("a word")


def test_a_console_of_ones_own_that_fails_does_not_end_the_work_either() -> None:
    with Progress(Console(file=Failing(errno.ENOSPC))) as progress:
        progress.finish(progress.add("training", total=3))
        progress.print("a word")
