"""What `make check-floors` installs is what pyproject.toml declares, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import floors as program
import sdclr
from floors import floors, own_extras, pin

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_declared_requirement_becomes_one_exact_version() -> None:
    extras = PROJECT["optional-dependencies"]
    pins = floors(extras=tuple(extras), build=True)
    declared = list(PROJECT["dependencies"])
    for texts in extras.values():
        declared += [text for text in texts if "sdclr[" not in text]
    assert len(pins) == len(declared) + 1, "and hatchling"
    for text in declared:
        assert text.replace(">=", "==") in pins
    assert [text.partition("==")[0] for text in pins[:3]] == ["hatchling", "torch", "torchvision"]


def test_an_extra_brings_the_extras_that_it_names() -> None:
    found = floors(extras=("test",))
    for name in ("pyarrow", "pillow-heif"):
        assert sum(text.startswith(f"{name}==") for text in found) == 1
    assert not any(text.startswith(("ruff", "sdclr")) for text in found)
    assert own_extras("sdclr[parquet, heif]", "sdclr") == ["parquet", "heif"]
    assert own_extras("torch>=2.10", "sdclr") == []
    with pytest.raises(ValueError, match="no extra 'tests'"):
        floors(extras=("tests",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("torch>=2.10", "torch==2.10"),
        ("coverage[toml] >= 7.1.0", "coverage[toml]==7.1.0"),
        ("atheris>=3; python_version < '3.15'", "atheris==3; python_version < '3.15'"),
    ],
)
def test_a_floor_is_pinned_with_its_marker(text: str, expected: str) -> None:
    assert pin(text) == expected


@pytest.mark.parametrize(
    "text", ["torch", "torch==2.10", "torch>=2.10,<3", "torch>2", "torch~=2.10", "torch @ file:x"]
)
def test_a_requirement_without_a_plain_floor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="has no floor to check"):
        pin(text)


def test_as_a_program_it_prints_a_pin_a_line_without_any_library() -> None:
    command = [sys.executable, "-S", "-E", str(program.__file__), "--build", "heif"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines == floors(extras=("heif",), build=True)


def test_the_version_stands_in_one_place_and_the_citation_follows() -> None:
    assert "version" not in PROJECT
    assert PROJECT["dynamic"] == ["version"]
    cited = re.findall(r"(?m)^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited == [sdclr.__version__]
    newest = re.search(r"(?m)^## ([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert newest is not None
    assert newest[1] == sdclr.__version__


def test_the_declared_pythons_are_the_ones_that_are_checked() -> None:
    pythons = {text.rpartition(" ")[2] for text in PROJECT["classifiers"] if "Python :: 3." in text}
    assert min(pythons) == PROJECT["requires-python"].removeprefix(">=")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for python in (min(pythons), max(pythons)):
        assert f"python{python}" in makefile, (
            f"python{python} is declared and no verb of make runs it"
        )


@pytest.mark.parametrize(
    ("module", "ours"),
    [
        ("sdclr", True),
        ("sdclr.data.views.augment", True),
        ("tests.data.test_views", True),
        ("test_views", True),
        ("sdclr_plugin", False),
        ("torch.fx", False),
        ("typer", False),
        ("click.utils", False),
    ],
)
def test_at_the_floors_a_warning_is_an_error_where_it_is_ours(
    pytestconfig: pytest.Config, module: str, ours: bool
) -> None:
    plugins = pytestconfig.pluginmanager.get_plugins()
    pattern = next(plugin.OWN_MODULES for plugin in plugins if hasattr(plugin, "OWN_MODULES"))
    assert bool(re.match(pattern, module)) == ours
