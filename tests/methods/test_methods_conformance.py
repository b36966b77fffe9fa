"""Every method keeps the contract, one that a user has added included; and the suite rejects those that do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import method_conformance as conformance
import sdclr
from outside_method import (
    BAD,
    ChangingAttribute,
    ForgottenBuffer,
    HardImages,
    IgnoredShare,
    MeanLoss,
)
from sdclr import pretrain
from sdclr.cli import app
from sdclr.errors import ConfigError
from sdclr.jobs.pretrain import agree
from sdclr.methods import METHODS
from sdclr.outside import Table
from several_processes import codes, started

OURS = tuple(METHODS)
REFERENCE = ("simclr", "sdclr")
EVERY = (*OURS, "hard_images")
STATELESS = ("focal", "lotar", "vicreg")
"""They keep nothing that SimCLR does not keep."""


@pytest.fixture(autouse=True)
def own_entries() -> Iterator[None]:
    """A user's method among ours; the table is as it was afterwards."""
    with METHODS.temporarily():
        sdclr.register_method(HardImages)
        yield


@pytest.mark.parametrize("name", EVERY)
def test_a_loss_is_one_number_per_image(name: str) -> None:
    conformance.loss_is_per_image(name)


@pytest.mark.filterwarnings("ignore:the network's tensors were replaced")
@pytest.mark.parametrize("name", [name for name in EVERY if name != "cluster_balanced"])
def test_everything_is_made_on_the_device_that_a_method_was_moved_to(name: str) -> None:
    # clusters are read on the host, and without a device there is nothing to read
    conformance.everything_is_made_on_the_device(name)


@pytest.mark.parametrize("name", EVERY)
def test_gradients_reach_every_parameter(name: str) -> None:
    conformance.gradients_reach_every_parameter(name)


@pytest.mark.journeys
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in STATELESS else name for name in EVERY],
)
def test_a_run_stopped_inside_an_epoch_ends_like_a_whole_one(name: str, tmp_path: Path) -> None:
    conformance.a_stopped_run_ends_like_a_whole_one(name, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "hard_images",
        *(pytest.param(name, marks=pytest.mark.slow) for name in OURS if name not in REFERENCE),
    ],
)
@pytest.mark.processes
def test_two_processes_are_one(name: str, tmp_path: Path) -> None:
    """The other two: tests/reliability/test_several_processes.py."""
    conformance.two_processes_are_one(name, tmp_path)


@pytest.mark.compiles
@pytest.mark.parametrize("name", EVERY)
def test_three_epochs_are_compiled_once(name: str) -> None:
    conformance.one_compilation_over_three_epochs(name)


@pytest.mark.parametrize("name", EVERY)
def test_settings_survive_yaml(name: str, tmp_path: Path) -> None:
    conformance.settings_survive_yaml(name, tmp_path)


@pytest.mark.parametrize("name", EVERY)
def test_a_method_is_listed(name: str) -> None:
    row = METHODS[name]
    assert row.display_name
    assert row.summary.endswith(".")
    lines = CliRunner().invoke(app, ["methods", "--json"]).output.splitlines()
    assert {"name": name, "display_name": row.display_name, "summary": row.summary} in map(
        json.loads, lines
    )
    assert any(
        line.startswith(f"{name} ") and f" {row.display_name}  " in line
        for line in CliRunner().invoke(app, ["methods"]).output.splitlines()
    )


@pytest.mark.parametrize("name", OURS)
def test_the_documentation_knows_every_method_of_ours(name: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "method.md").read_text(encoding="utf-8")
    assert f"`{name}`" in text


# What the suite rejects.


@pytest.mark.parametrize(
    ("bad", "check"),
    [
        ("bad_mean", conformance.loss_is_per_image),
        ("bad_spread", conformance.loss_is_per_image),
        ("bad_detached", conformance.gradients_reach_every_parameter),
        ("bad_attribute", conformance.one_compilation_over_three_epochs),
    ],
)
def test_the_suite_rejects(bad: str, check: Callable[[str], None]) -> None:
    for method in BAD:
        sdclr.register_method(method)
    with pytest.raises((AssertionError, RuntimeError)):
        check(bad)


@pytest.mark.journeys
def test_the_suite_rejects_what_a_checkpoint_would_forget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the guard, so that it is the suite that notices."""
    monkeypatch.setattr("sdclr.methods.contract.StateGuard.check", lambda *_: None)
    for method in (ChangingAttribute, ForgottenBuffer):
        name = sdclr.register_method(method)
        with pytest.raises(AssertionError):
            conformance.a_stopped_run_ends_like_a_whole_one(name, tmp_path / name)


@pytest.mark.processes
def test_the_suite_rejects_an_ignored_share(tmp_path: Path) -> None:
    """Without the check before the first step."""
    sdclr.register_method(IgnoredShare)
    config = conformance.run_config("bad_share", "precision=fp64", "batch_size=151", "epochs=1")
    expected = pretrain(config, tmp_path / "one").metrics()[0]["loss"]

    train = conformance.training("bad_share", config, tmp_path / "two")

    def unchecked(_: int) -> None:
        agree.require_use_of_share = lambda *_: None
        train(0)

    assert codes(started(2, unchecked)) == [0, 0]
    assert sdclr.Run(tmp_path / "two").metrics()[0]["loss"] != pytest.approx(expected, rel=1e-3)


# What a training refuses at once.


@pytest.mark.parametrize("bad", [ChangingAttribute, ForgottenBuffer])
def test_state_that_no_checkpoint_holds_is_an_error(
    bad: type[ChangingAttribute], tmp_path: Path
) -> None:
    name = sdclr.register_method(bad)
    with pytest.raises(
        ConfigError, match=r"has changed .* no checkpoint holds it.*register_buffer"
    ):
        pretrain(conformance.run_config(name), tmp_path / "x")


def test_a_loss_that_is_a_mean_is_an_error_before_the_weights_move(tmp_path: Path) -> None:
    name = sdclr.register_method(MeanLoss)
    with pytest.raises(ConfigError, match=r"one number per image, \[200\] here; got \[\]"):
        pretrain(conformance.run_config(name), tmp_path / "x")


@pytest.mark.processes
def test_an_ignored_share_is_an_error_on_several_processes(tmp_path: Path) -> None:
    name = sdclr.register_method(IgnoredShare)
    act = conformance.training(name, conformance.run_config(name), tmp_path / "x")
    assert codes(started(2, act)) == [78, 78]
    assert "IgnoredShare does not use views.share" in str(
        sdclr.Run(tmp_path / "x").read_status()["message"]
    )


def test_weights_that_are_not_one_per_image_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HardImages, "sampling_weights", lambda self: -self.weights)
    with pytest.raises(
        ConfigError, match=r"HardImages\.sampling_weights must return 405 finite numbers"
    ):
        pretrain(conformance.run_config("hard_images"), tmp_path / "x")


def test_the_table_of_the_package_has_no_entry_from_outside() -> None:
    assert isinstance(METHODS, Table)
    assert all(not METHODS[name].origin for name in OURS)
