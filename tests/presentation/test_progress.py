"""Progress with a clock of our own: few lines in a log, bars on a terminal, silence in a library."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from counted_work import calls_made
from sdclr.presentation.progress import NoProgress, Progress


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


def plain(log: io.StringIO, clock: Clock) -> Progress:
    return Progress(Console(file=log, width=200), now=clock)


def test_a_log_gets_a_first_a_last_and_a_line_each_ten_seconds(log: io.StringIO, clock: Clock) -> None:
    with plain(log, clock) as progress:
        task = progress.add("SimCLR, split 1", total=1200, unit="steps")
        for _ in range(1200):
            clock.seconds += 1 / 64  # exact in binary
            progress.advance(task, note="loss 4.91")
        progress.finish(task, "saved")
    assert log.getvalue().splitlines() == [
        "SimCLR, split 1: 0/1200 steps, 0 %",
        "SimCLR, split 1: 640/1200 steps, 53 %, 64 steps/s, 0:00:09 left, loss 4.91",
        "SimCLR, split 1: finished, 1200/1200 steps, 100 %, 64 steps/s, took 0:00:19, saved",
    ]


def test_the_rate_of_a_resumed_task_counts_only_this_sitting(log: io.StringIO, clock: Clock) -> None:
    with plain(log, clock) as progress:
        task = progress.add("run", total=1000, unit="steps", done=900)
        clock.seconds = 10
        progress.advance(task, 20)
    assert "920/1000 steps, 92 %, 2 steps/s, 0:00:40 left" in log.getvalue()


def test_a_task_cut_short_says_so(log: io.StringIO, clock: Clock) -> None:
    with plain(log, clock) as progress:
        task = progress.add("run", total=10)
        clock.seconds = 1
        progress.advance(task, 3)
    assert log.getvalue().splitlines()[-1] == "run: stopped, 3/10 steps, 30 %, 3 steps/s, took 0:00:01"


def test_text_is_printed_whole_and_without_markup(log: io.StringIO, clock: Clock) -> None:
    with Progress(Console(file=log, width=20), now=clock) as progress:
        progress.print("[red] a line longer than the width of the log")
    assert log.getvalue() == "[red] a line longer than the width of the log\n"


def test_nothing_to_do_is_no_division_by_zero(log: io.StringIO, clock: Clock) -> None:
    with plain(log, clock) as progress:
        progress.finish(progress.add("nothing", total=0))
    assert "finished, 0/0 steps" in log.getvalue()


def test_a_terminal_shows_a_bar_and_text_above_it(clock: Clock) -> None:
    log = io.StringIO()
    with Progress(Console(file=log, force_terminal=True, width=110), now=clock) as progress:
        task = progress.add("SimCLR [1]", total=4)
        clock.seconds = 2
        progress.advance(task, 2, note="loss 4.91")
        progress.print("a word")
        progress.finish(task, "saved")
    text = log.getvalue()
    assert "a word" in text
    assert "SimCLR [1]" in text
    assert "━" in text
    assert "2/2 steps, 100 %, 1 steps/s, took 0:00:02, saved" in text


def test_advancing_costs_far_less_than_a_step() -> None:
    with Progress(Console(file=io.StringIO(), force_terminal=True)) as progress:
        task = progress.add("run", total=2000)
        found = calls_made(lambda: [progress.advance(task, note="loss 4.91") for _ in range(1000)])
    assert found["advance"] == 1000
    assert found.total() < 30 * 1000, "to draw the bars once takes two thousand calls"


def test_no_progress_is_silent_and_has_the_same_interface(capfd: pytest.CaptureFixture[str]) -> None:
    with NoProgress() as progress:
        task = progress.add("run", total=3)
        progress.advance(task, 1, note="x")
        progress.print("text")
        progress.finish(task, "done")
    assert capfd.readouterr() == ("", "")
    public = {name for name in vars(Progress) if not name.startswith("_")}
    assert public == {name for name in vars(NoProgress) if not name.startswith("_")}


def test_progress_leaves_standard_output_to_results(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.add("run", total=3)
    out, err = capfd.readouterr()
    assert out == ""
    assert "run: stopped, 0/3 steps" in err
