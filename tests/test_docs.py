"""The documentation's commands exist: every right-hand side of docs/from-the-reference.md parses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from sdclr import cli
from sdclr.cli.settings import pretrain_settings
from sdclr.data import SOURCES
from sdclr.errors import EXIT_BUG, SdclrError
from sdclr.recipes import SYSTEMS, recipe
from sdclr.workflows.reproduce import choose_arms

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "from-the-reference.md").read_text(encoding="utf-8")
ROWS = [
    line.strip("| \n").split(" | ")
    for line in PAGE.splitlines()
    if line.startswith("|") and "---" not in line
]
CODE = re.compile(r"`([^`]+)`")
COMMANDS = [code for row in ROWS for code in CODE.findall(row[1]) if code.startswith("sdclr ")]
SETTINGS = [
    code for row in ROWS for code in CODE.findall(row[1]) if re.fullmatch(r"[a-z_.]+=\S+", code)
]


def test_every_row_has_two_sides_and_every_flag_of_the_reference_is_there() -> None:
    assert all(len(row) == 2 for row in ROWS)
    left = " ".join(row[0] for row in ROWS)
    flags = [
        "-g",
        "-w",
        "-p",
        "--split",
        "--data",
        "--temp",
        "--prune",
        "--prune_percent",
        "--prune_dual_bn",
    ]
    flags += ["--only_finetuning", "--test_only", "--dataset", "--LT", "--fewShot"]
    for flag in flags:
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", left), flag
    for script in (
        "cifar-10-LT.sh",
        "cifar-100-LT.sh",
        "imagenet-100-res50-LT.sh",
        "imagenet-res50-LT.sh",
    ):
        assert script in left
    assert len(COMMANDS) >= 18
    assert len(SETTINGS) >= 12


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command: str) -> None:
    verb, *arguments = shlex.split(command)[1:]
    group = typer.main.get_command(cli.app)
    parsed = group.commands[verb].make_context(verb, arguments)  # type: ignore[attr-defined]
    values = parsed.params
    given = [a for a in values.get("arguments") or [] if "=" in a]
    if verb == "pretrain":
        flags = {"data.path": values["data"], "data.splits_dir": values["splits_dir"]}
        pretrain_settings(values["arguments"], None, flags, None)
    elif verb == "evaluate" and values["recipe"]:
        recipe(values["recipe"]).with_overrides(given)
    elif verb == "reproduce":
        assert choose_arms(values["dataset"], values["arms"])


def test_every_command_of_the_other_pages_parses() -> None:
    lines = [
        line
        for page in DOCS.rglob("*.md")
        for line in page.read_text(encoding="utf-8").splitlines()
    ]
    commands = [
        part for line in lines if line.startswith("    sdclr ") for part in line.split(" && ")
    ]
    assert len(commands) >= 8
    group = typer.main.get_command(cli.app)
    for command in commands:
        verb, *arguments = shlex.split(command, comments=True)[1:]
        group.commands[verb].make_context(verb, arguments)  # type: ignore[attr-defined]


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_exists(setting: str) -> None:
    recipe("cifar10_lt_sdclr").with_overrides([setting])


def test_the_eleven_published_systems_are_all_on_the_page() -> None:
    names = {command.split()[2] for command in COMMANDS if command.startswith("sdclr pretrain")}
    published = {
        SYSTEMS[d][arm]
        for d in SYSTEMS
        if d != "digits"
        for arm in ("simclr_balanced", "simclr", "sdclr")
    }
    assert names == published - {"imagenet_lt_exp_sdclr"}
    assert len(names) == 11


def test_every_link_of_the_docs_leads_somewhere() -> None:
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_data_page_names_every_data_set() -> None:
    text = (DOCS / "data.md").read_text(encoding="utf-8")
    for name in SOURCES:
        assert f"`{name}`" in text, name


def test_every_promise_names_a_test_that_exists_and_every_exit_code_is_listed() -> None:
    text = (DOCS / "reliability.md").read_text(encoding="utf-8")
    tests = Path(__file__).parent
    named = set(re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py)`", text))
    assert len(named) >= 12
    for name in named:
        assert (tests.parent / name if "/" in name else tests / "reliability" / name).exists(), name
    assert {path.name for path in (tests / "reliability").glob("test_*.py")} <= named, (
        "a test that keeps no promise"
    )
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)}
    assert codes == {0, 2, EXIT_BUG, *(kind.exit_code for kind in SdclrError.__subclasses__())}
