"""SIGKILL at any instant: the checkpoints stay readable, and the end is the same, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from killing import kill_campaign
from sdclr.jobs.pretrain import state

pytestmark = pytest.mark.processes


def check(tmp_path: Path, kills: int, seed: int, *, thread: bool = False) -> int:
    """Every promise of a campaign; returns how many kills fell inside a save."""
    figures = kill_campaign.campaign(tmp_path, kills, seed, thread=thread)
    assert figures.kills == kills
    assert figures.unreadable_checkpoints == 0
    assert figures.equal_endings == kills
    assert figures.told_truly == figures.run_folders
    return figures.inside_a_save


def test_runs_killed_at_random_instants_end_as_if_nobody_had_killed_them(tmp_path: Path) -> None:
    check(tmp_path, 3, seed=1)


@pytest.mark.slow
def test_runs_whose_checkpoints_a_thread_writes_end_so_too(tmp_path: Path) -> None:
    check(tmp_path, 2, seed=4, thread=True)


@pytest.mark.slow
def test_a_hundred_kills_with_a_thread_that_writes(tmp_path: Path) -> None:
    assert check(tmp_path, 100, seed=5, thread=True) >= 5, (
        "33 are aimed; on a busy machine many come late"
    )


@pytest.mark.slow
def test_two_hundred_kills_of_which_many_inside_a_save(tmp_path: Path) -> None:
    assert check(tmp_path, 200, seed=2) >= 10, "66 are aimed; on a busy machine many come late"


@pytest.mark.slow
def test_the_campaign_notices_a_run_that_forgets_its_momentum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "restore_state", lambda *_: None)
    # on a busy machine all three may come before the first step, or after the last
    for seed in range(3, 11):
        figures = kill_campaign.campaign(tmp_path / str(seed), 3, seed=seed)
        if figures.equal_endings < figures.kills:
            return
    pytest.fail("a run that forgets its momentum ended like a whole one after each of 24 kills")
