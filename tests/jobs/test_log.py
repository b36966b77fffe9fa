"""RUN/log.txt: the words of a run, over all its sittings."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from one_training import patch_steps
from sdclr import PretrainConfig, pretrain, recipe
from sdclr.errors import ConfigError, Preempted
from sdclr.jobs.pretrain.log import LoggedProgress
from sdclr.jobs.pretrain.training import TrainingState
from sdclr.presentation.progress import NoProgress

TINY = ["epochs=2", "backbone.width=2", "views.size=8", "batch_size=200"]


def config() -> PretrainConfig:
    return recipe("digits_sdclr").with_overrides(TINY)


def test_a_run_keeps_what_it_said_with_the_time(tmp_path: Path) -> None:
    run = pretrain(config(), tmp_path / "run")
    lines = (run.folder / "log.txt").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    text = "\n".join(lines)
    assert "starting: 405 images" in text
    assert len(re.findall(r"loss \d\.\d{3}, epoch [12]/2", text)) == 2
    assert "finished, loss" in lines[-1]


def test_the_second_sitting_is_added_and_the_end_of_the_first_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(training: object, state: TrainingState) -> None:
        state.stop.signal_name = "SIGTERM"

    with monkeypatch.context() as patch:
        patch_steps(patch, then=ask)
        with pytest.raises(Preempted):
            pretrain(config(), tmp_path / "run")
    text = (tmp_path / "run" / "log.txt").read_text()
    assert "stopped: by SIGTERM at step 1" in text.splitlines()[-1]
    pretrain(config(), tmp_path / "run")
    again = (tmp_path / "run" / "log.txt").read_text()
    assert again.startswith(text)
    assert "resuming at step 1" in again


def test_nothing_is_written_before_a_run_begins(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        pretrain(config().with_values({"batch_size": 100_000}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_warnings_are_kept_and_shown(tmp_path: Path) -> None:
    log = LoggedProgress(NoProgress())

    def warn() -> None:
        with log.logging_warnings():
            warnings.warn("look before anything is there", stacklevel=1)
            with log.written_to(tmp_path):
                warnings.warn("look here\nand there", stacklevel=1)

    with pytest.warns(UserWarning, match="look"):
        warn()
    text = (tmp_path / "log.txt").read_text()
    assert "warning: look before anything is there" in text
    assert "warning: look here\\nand there" in text


def test_a_disk_that_refuses_the_log_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "log.txt").mkdir()
    log = LoggedProgress(NoProgress())
    log.print("before")
    with (
        pytest.warns(
            UserWarning, match="cannot be written .* the run continues without it"
        ) as caught,
        log.written_to(tmp_path),
    ):
        log.print("one")
    assert len(caught) == 1


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log.txt").symlink_to(tmp_path / "elsewhere")
    log = LoggedProgress(NoProgress())
    with pytest.warns(UserWarning, match="cannot be written"), log.written_to(tmp_path):
        log.print("x")
    assert not (tmp_path / "elsewhere").exists()
