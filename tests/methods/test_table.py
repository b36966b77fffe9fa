"""Methods from outside the package: by a plain call, by module:Class on the command line, and never by a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from torch import nn
from typer.testing import CliRunner

import method_conformance as conformance
import sdclr
from outside_method import HardImages, HardImagesConfig
from sdclr import PretrainConfig, pretrain, recipe, resume
from sdclr.cli import app
from sdclr.errors import ConfigError, Preempted
from sdclr.jobs.report import write_report
from sdclr.methods import METHODS, Method, MethodConfig
from sdclr.methods.table import named_method


@pytest.fixture(autouse=True)
def own_entries() -> Iterator[None]:
    with METHODS.temporarily():
        yield


def test_a_plain_call_adds_a_method_and_may_be_repeated() -> None:
    assert sdclr.register_method(HardImages) == sdclr.register_method(HardImages) == "hard_images"
    config = recipe("digits_simclr").with_overrides(
        ["method.name=hard_images", "method.memory=0.9"]
    )
    assert config.method == HardImagesConfig(memory=0.9)
    with pytest.raises(
        ConfigError, match=r"method\.memori is not a setting; did you mean method\.memory\?"
    ):
        recipe("digits_simclr").with_overrides(["method.name=hard_images", "method.memori=0.9"])


class NoDefault(MethodConfig):
    pass


class TakenConfig(MethodConfig):
    name: Literal["simclr"] = "simclr"


@pytest.mark.parametrize(
    ("members", "base", "words"),
    [
        ({}, nn.Module, "not a subclass of sdclr.Method"),
        ({}, Method, "class attribute config"),
        ({"config": NoDefault, "display_name": "X"}, Method, "must say name: Literal"),
        ({"config": HardImagesConfig}, Method, "display_name"),
        (
            {"config": TakenConfig, "display_name": "X"},
            Method,
            "there is a method 'simclr' already, from sdclr itself",
        ),
    ],
)
def test_what_is_no_method_is_refused_with_what_it_lacks(
    members: dict[str, object], base: type[nn.Module], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        sdclr.register_method(type("Mine", (base,), members))


def test_another_method_begins_at_its_own_defaults() -> None:
    sdclr_of_simclr = recipe("cifar10_lt_simclr").with_values({"method.name": "sdclr"})
    assert sdclr_of_simclr.method.to_dict() == METHODS["sdclr"].config().to_dict()
    assert sdclr_of_simclr.method == recipe("cifar10_lt_sdclr").method, (
        "the paper's 3-layer head, too"
    )
    back = sdclr_of_simclr.with_values({"method.name": "simclr", "method.temperature": 0.5})
    assert back.method.to_dict() == METHODS["simclr"].config(temperature=0.5).to_dict()
    same = sdclr_of_simclr.with_values({"method.prune_ratio": 0.5}).with_values(
        {"method.name": "sdclr"}
    )
    assert same.method.to_dict()["prune_ratio"] == 0.5, "the same method keeps what was set"


SCRIPT = """
from typing import Literal
import torch
import sdclr
from sdclr.methods.simclr import SimCLR

class CosineConfig(sdclr.MethodConfig):
    name: Literal["mine"] = "mine"
    projector_layers: int = 2
    projection_dim: int = 16

class Mine(SimCLR):
    "SimCLR under another name."
    config = CosineConfig
    display_name = "Mine & co"

print("imported my_methods")
"""


COMMANDS = """
import json, sys
from sdclr.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["sdclr", *words]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


def commands(folder: Path, *lines: list[str]) -> subprocess.CompletedProcess[str]:
    """Commands one after another in a process that knows of nothing registered here."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(lines)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.usefixtures("light_figures")
@pytest.mark.processes
def test_the_command_line_takes_a_class_and_no_file_imports_it(tmp_path: Path) -> None:
    (tmp_path / "my_methods.py").write_text(SCRIPT)
    words = ["digits_simclr", "method.name=my_methods:Mine", *conformance.TINY, "--out", "x"]
    trained = commands(tmp_path, ["pretrain", *words])
    assert trained.returncode == 0, trained.stderr
    assert "imported my_methods" in trained.stdout
    config = (tmp_path / "x" / "config.yaml").read_text()
    assert "name: mine" in config
    assert "my_methods" not in config
    for words in (
        ["evaluate", str(tmp_path / "x"), "--probes", "knn"],
        ["status", str(tmp_path / "x")],
    ):
        found = CliRunner().invoke(app, words)
        assert found.exit_code == 0, found.output
    assert "my_methods" not in sys.modules, "a run folder imports nothing"
    with pytest.raises(ConfigError, match="there is no method 'mine'"):
        recipe("digits_simclr").with_overrides(["method.name=mine"])  # here nobody knows it
    write_report([tmp_path / "x"], {"html"}, tmp_path / "page.html", overwrite=True)
    page = (tmp_path / "page.html").read_text()
    assert "Mine &amp; co" in page, "the name in tables is kept in the run"


def test_a_run_that_goes_on_asks_for_its_method(tmp_path: Path) -> None:
    sdclr.register_method(HardImages)
    with pytest.raises(Preempted, match=r"--use outside_method:HardImages"):
        pretrain(
            conformance.run_config("hard_images"), tmp_path / "x", progress=conformance.SignalAt(5)
        )
    METHODS._rows.pop("hard_images")
    with pytest.raises(
        ConfigError, match=r"not part of sdclr.*sdclr resume .*/x --use outside_method:HardImages"
    ):
        resume(tmp_path / "x")
    with pytest.raises(ConfigError, match="there is no method 'hard_images'"):
        PretrainConfig.from_yaml(tmp_path / "x" / "config.yaml")
    assert named_method("outside_method:HardImages") == "hard_images"
    assert len(resume(tmp_path / "x").metrics()) == 3


def test_a_name_that_is_none_is_met_with_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"method\.name: there is no method 'simclt'\. Did you mean simclr\?"
    ):
        recipe("digits_simclr").with_overrides(["method.name=simclt"])
    assert named_method("sdclr") == "sdclr"
