"""Progress with a clock of our own: few lines in a log, bars on a terminal, silence in a library."""

from __future__ import annotations

import io
from pathlib import Path

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


def test_a_log_gets_a_first_a_last_and_a_line_each_ten_seconds(
    log: io.StringIO, clock: Clock
) -> None:
    with plain(log, clock) as progress:
        task = progress.add("SimCLR, split 1", total=1200, unit="steps")
        for _ in range(1200):
            clock.seconds += 1 / 64  # exact in binary
            progress.advance(task, note="loss 4.91")
        progress.finish(task, "saved")
    assert log.getvalue().splitlines() == [
        "SimCLR, split 1: 0/1200 steps, 0 %",
        "SimCLR, split 1: 640/1200 steps, 53 %, loss 4.91, 0:00:09 left, 64 steps/s",
        "SimCLR, split 1: finished, 1200/1200 steps, 100 %, saved, took 0:00:19, 64 steps/s",
    ]


def test_the_rate_of_a_resumed_task_counts_only_this_sitting(
    log: io.StringIO, clock: Clock
) -> None:
    with plain(log, clock) as progress:
        task = progress.add("run", total=1000, unit="steps", done=900)
        clock.seconds = 10
        progress.advance(task, 20)
    assert "920/1000 steps, 92 %, 0:00:40 left, 2 steps/s" in log.getvalue()


def test_a_task_cut_short_says_so(log: io.StringIO, clock: Clock) -> None:
    with plain(log, clock) as progress:
        task = progress.add("run", total=10)
        clock.seconds = 1
        progress.advance(task, 3)
    assert (
        log.getvalue().splitlines()[-1] == "run: stopped, 3/10 steps, 30 %, took 0:00:01, 3 steps/s"
    )


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
    assert text.count("SimCLR [1]: finished, 2/2 steps, 100 %, saved, took 0:00:02, 1 steps/s") == 1


def test_results_on_a_terminal_come_below_bars_that_have_ended(clock: Clock) -> None:
    log = io.StringIO()
    console = Console(file=log, force_terminal=True, width=100)
    with Progress(console, now=clock) as progress:
        first, second = (progress.add(f"task {n}", total=2) for n in (1, 2))
        progress.finish(first)
        assert progress._bars is not None
        assert progress._bars.live.is_started, "one still runs"
        progress.finish(second)
        assert not progress._bars.live.is_started
        log.write("the results\n")
        progress.finish(progress.add("task 3", total=1))
    before, _, after = log.getvalue().partition("the results")
    for name in ("task 1: finished", "task 2: finished"):
        assert (before.count(name), after.count(name)) == (1, 0)
    assert "task 1" not in after
    assert after.count("task 3: finished") == 1


def test_a_narrow_terminal_cuts_the_rate_and_not_the_loss(clock: Clock) -> None:
    log = io.StringIO()
    with Progress(Console(file=log, force_terminal=True, width=70), now=clock) as progress:
        task = progress.add("own_images runs/p", total=5000)
        clock.seconds = 3
        progress.advance(task, 1200, note="loss 4.913, epoch 12/50")
        assert progress._bars is not None
        progress._bars.refresh()
    assert "1200/5000 steps, 24 %, loss 4.9" in log.getvalue()


def test_an_announcement_goes_past_every_buffer(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, Progress(Console(file=log)) as progress:
        progress.announce("SIGINT: stopping after this step\n")
        assert (tmp_path / "log").read_text() == "SIGINT: stopping after this step\\n\n"
    Progress(Console(file=io.StringIO())).announce("no file, no error")


def test_advancing_costs_far_less_than_a_step() -> None:
    with Progress(Console(file=io.StringIO(), force_terminal=True)) as progress:
        task = progress.add("run", total=2000)
        found = calls_made(lambda: [progress.advance(task, note="loss 4.91") for _ in range(1000)])
    assert found["advance"] == 1000
    assert found.total() < 30 * 1000, "to draw the bars once takes two thousand calls"


def test_no_progress_is_silent_and_has_the_same_interface(
    capfd: pytest.CaptureFixture[str],
) -> None:
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
