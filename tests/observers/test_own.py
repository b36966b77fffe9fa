"""Observers of a user's own, named on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdclr.cli import app
from sdclr.errors import ConfigError
from sdclr.observers import own_observers

MODULE = """
import sdclr

class Writes(sdclr.Observer):
    def on_begin(self, begins):
        self.where = f"{begins.folder}/seen.txt"
    def on_epoch(self, done):
        with open(self.where, "a") as file:
            print(done.epoch, f"{done.measured['loss']:.6f}", file=file)

class Needs(sdclr.Observer):
    def __init__(self, what):
        self.what = what

class Fails(sdclr.Observer):
    def on_epoch(self, done):
        raise ValueError("no more")

ready = Needs(1)
number = 3
"""
TINY = ("epochs=2", "views.size=8", "backbone.width=4", "health_every_epochs=0")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_watchers_of_this_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*words: str) -> str:
    found = CliRunner().invoke(app, list(words))
    assert found.exit_code == 0, f"{found.output} {found.exception}"
    return found.output


def test_an_observer_of_the_command_line_sees_every_epoch(here: Path) -> None:
    name = "my_watchers_of_this_test:Writes"
    invoke("pretrain", "digits_simclr", *TINY, "--out", "run", "--observe", name)
    seen = [line.split() for line in (here / "run" / "seen.txt").read_text().splitlines()]
    assert [epoch for epoch, _ in seen] == ["1", "2"]
    # what a run is made of does not name it
    assert "my_watchers" not in (here / "run" / "config.yaml").read_text()
    invoke("resume", "run", "--observe", name)


def test_one_that_fails_leaves_the_run_alone(here: Path) -> None:
    with pytest.warns(UserWarning, match="Fails failed and no longer watches the run"):
        invoke(
            *("pretrain", "digits_simclr", *TINY, "--out", "run"),
            *("--observe", "my_watchers_of_this_test:Fails"),
        )
    assert (here / "run" / "backbone.safetensors").is_file()


def test_an_object_is_taken_as_it_is_and_each_name_once(here: Path) -> None:
    name = "my_watchers_of_this_test:ready"
    (ready,) = own_observers([name, name])
    assert ready.what == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_watchers_of_this_test:Needs", "called without arguments: TypeError"),
        (
            "my_watchers_of_this_test:number",
            "is not a valid observer: it is not a subclass of sdclr.Observer",
        ),
        ("my_watchers_of_this_test:Writs", "Did you mean Writes"),
        ("tensorboard", "takes module:Class.* --log NAMES"),
        ("no_such_module:Mine", "there is no module no_such_module"),
    ],
)
def test_what_is_no_observer_is_one_clear_error(here: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        own_observers([name])
