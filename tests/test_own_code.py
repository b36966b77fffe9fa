"""Whose code raised: ours, a library's, or that of a user's own module."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sdclr import recipe
from sdclr.own_code import place_in_users_code

METHOD = """
from typing import Literal

import sdclr


class MineConfig(sdclr.MethodConfig):
    name: Literal["mine"] = "mine"


class Mine(sdclr.Method):
    config = MineConfig
    display_name = "Mine"

    def __init__(self, network):
        super().__init__()
        self.network = network

    @classmethod
    def from_config(cls, config, parts):
        return cls(parts.network(2, 16))

    def forward(self, views):
        raise ValueError("what I forgot")
"""


def place_of(action: Callable[[], object]) -> str | None:
    with pytest.raises(Exception) as caught:
        action()
    return place_in_users_code(caught.value)


def test_the_users_line_is_named_also_where_a_library_raises_for_it() -> None:
    def parse() -> object:
        return json.loads("{")

    line = parse.__code__.co_firstlineno + 1
    assert place_of(parse) == f"{__file__}, line {line}"


def test_what_our_code_raises_is_ours_whoever_calls_it() -> None:
    assert place_of(lambda: recipe("there_is_no_such_recipe")) is None


@pytest.mark.journeys
def test_a_method_that_fails_is_not_called_a_bug_of_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METHOD)
    settings = ["epochs=1", "views.size=8", "backbone.name=resnet10", "backbone.width=2"]
    arguments = ["digits_simclr", "method.name=mine:Mine", "--out", "run", *settings]
    done = subprocess.run(
        [sys.executable, "-m", "sdclr", "pretrain", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 70, done.stderr
    last = " ".join(done.stderr.split("ValueError: what I forgot")[-1].split())
    assert last.startswith("This error came from"), done.stderr
    assert "mine.py, line 24" in last
    assert "bug in sdclr" not in done.stderr
