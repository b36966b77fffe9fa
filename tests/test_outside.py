"""Entries from outside the package: what is imported, what is refused, and names kept apart."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sdclr.errors import ConfigError
from sdclr.outside import Table, load, load_outside, origin_of


class Tool(NamedTuple):
    name: str
    origin: str = ""


def no_class(found: Any) -> str:
    return "" if isinstance(found, type) else "it is not a class"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which Python does not look in by itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))]
    )
    for name in [name for name in sys.modules if name.startswith("outsider")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_a_module_of_the_current_folder_is_found_and_the_folder_is_not_left_in_the_path(
    here: Path,
) -> None:
    (here / "outsider_a.py").write_text("class Mine: pass\n")
    found = load_outside("outsider_a:Mine", "tool", no_class)
    assert origin_of(found) == "outsider_a:Mine"
    assert str(here) not in sys.path


def test_what_is_installed_is_taken_before_the_current_folder(here: Path) -> None:
    (here / "fractions.py").write_text("raise SystemError('shadowed')\n")
    assert load_outside("fractions:Fraction", "tool", no_class) is load("fractions:Fraction")


def test_a_package_and_a_class_in_a_class_are_found(here: Path) -> None:
    (here / "outsider_b").mkdir()
    (here / "outsider_b" / "__init__.py").write_text("")
    (here / "outsider_b" / "tools.py").write_text("class Box:\n    class Mine: pass\n")
    assert load_outside("outsider_b.tools:Box.Mine", "tool", no_class).__qualname__ == "Box.Mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("outsider_c:", "write module:Name"),
        (":Mine", "write module:Name"),
        ("a b:Mine", "write module:Name"),
        ("./tools.py:Mine", "write module:Name"),
        ("outsider_c.py:Mine", "write the module without .py, outsider_c:Mine"),
        ("outsider_none:Mine", "there is no module outsider_none"),
        ("outsider_c.none:Mine", r"there is no module outsider_c\.none"),
        ("outsider_c:Mime", "outsider_c has no Mime. Did you mean Mine"),
        ("outsider_c:number", "outsider_c:number is not a valid tool: it is not a class"),
        ("outsider_needs:Mine", "outsider_needs cannot be imported: ModuleNotFoundError: .*'outsider_lib'"),
        ("outsider_exits:Mine", "outsider_exits cannot be imported: SystemExit: 3"),
        ("outsider_raises:Mine", r"cannot be imported: ValueError: no licence .*outsider_raises\.py, line 2"),
        ("outsider_text:Mine", "outsider_text cannot be imported: SyntaxError"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_one_clear_error(here: Path, text: str, message: str) -> None:
    (here / "outsider_c.py").write_text("class Mine: pass\nnumber = 3\n")
    (here / "outsider_needs.py").write_text("import outsider_lib\n")
    (here / "outsider_raises.py").write_text("\nraise ValueError('no licence')\n")
    (here / "outsider_exits.py").write_text("raise SystemExit(3)\n")
    (here / "outsider_text.py").write_text("class Mine(:\n")
    with pytest.raises(ConfigError, match=message):
        load_outside(text, "tool", no_class)
    assert str(here) not in sys.path


def test_entries_keep_their_names_apart() -> None:
    tools = Table("tool", [Tool("saw")])
    tools.add(Tool("axe", "mine:Axe"))
    tools.add(Tool("axe", "mine:Axe"))  # a notebook's cell that is run again
    assert list(tools) == ["saw", "axe"]
    with pytest.raises(ConfigError, match="a tool 'saw' already, from sdclr itself"):
        tools.add(Tool("saw", "mine:Saw"))
    with pytest.raises(ConfigError, match="a tool 'axe' already, from mine:Axe"):
        tools.add(Tool("axe", "theirs:Axe"))


@pytest.mark.parametrize(
    "name", ["", "Axe", "an axe", "../axe", "axe,saw", "axe:b", "axe=1", "9", None]
)
def test_a_name_that_a_flag_or_a_file_could_not_hold_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="a tool cannot be called"):
        Table[Tool]("tool", []).add(Tool(name, "mine:Axe"))


def test_an_unknown_name_is_answered_with_what_there_is() -> None:
    tools = Table("tool", [Tool("saw"), Tool("axe")])
    with pytest.raises(
        ConfigError, match=r"no tool 'sow'\. Did you mean saw\? There are saw, axe; one of your own"
    ):
        tools.require("sow")
    assert tools.require("axe") == Tool("axe")
