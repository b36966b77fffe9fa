from __future__ import annotations

import importlib.metadata
import sys

import pytest

import sdclr
from sdclr.run import environment as module
from sdclr.run.environment import environment


def test_the_environment_names_versions_and_device() -> None:
    facts = environment("CPU: test")
    assert {
        "sdclr",
        "torch",
        "python",
        "device",
        "command",
        "commit",
        "created",
        "world_size",
    } <= facts.keys()
    assert facts["device"] == "CPU: test"


def test_the_command_is_one_that_a_shell_reads_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sdclr", "embed", "a b", "--out", "it's \udcff.npz"])
    found = environment("cpu")["command"]
    assert found == "sdclr embed 'a b' --out $'it\\'s \\xff.npz'"
    assert found.isascii()


def test_a_copy_of_the_source_that_is_not_installed_knows_its_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    monkeypatch.setattr(
        module, "_version", module._version.__wrapped__
    )  # without what it remembers
    found = environment("cpu")
    assert found["sdclr"] == sdclr.__version__
    assert found["timm"] is None
