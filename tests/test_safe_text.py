"""Names stay names in every medium."""

from __future__ import annotations

import csv
import io
import random
import shlex
import subprocess
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from sdclr.safe_text import (
    command,
    csv_cell,
    csv_row,
    latex,
    markdown,
    markdown_line,
    one_line,
    shown,
    visible,
    without_guard,
)

HOSTILE = [
    "\x1b[2J\x1b]0;title\x07",
    "a\nerror: forged",
    "a\r\x08b",
    "\u202egnp.exe",
    "\x9b31m",
    "bytes \udcff",
    "\u2028",
    "[link](http://evil)",
    "![image](http://evil)",
    "<img src=x onerror=alert(1)>",
    "www.evil.example https://evil.example",
    "a|b",
    "`code` *bold* _em_ ~~gone~~",
    "$(rm -rf ~) `id` ; echo pwned",
    "# heading",
    "- item",
    "1. item",
    "> quote",
    "=====",
    "&lt;b&gt;",
    "'",
    "",
    "-x",
    "\t=1+1",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_is_not_seen_reaches_a_terminal(text: str) -> None:
    assert visible(text).replace("\n", "").isprintable()
    assert one_line(text).isprintable()


def test_what_is_seen_stays_as_it_is() -> None:
    assert visible("ä 名 🦊 👩‍👩‍👧 ± ≠\nb") == "ä 名 🦊 👩‍👩‍👧 ± ≠\nb"
    assert shown(Path("runs/ä b")) == "runs/ä b"
    assert shown("x" * 5000) == "x" * 100 + "..." + "x" * 100


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\udcff" not in text])
def test_a_shell_reads_the_very_words_back(text: str) -> None:
    line = command("printf", "%s", text)
    assert "\n" not in line
    assert line.isprintable()
    assert (
        subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
        == text.encode()
    )


def test_an_ordinary_command_looks_ordinary() -> None:
    assert command("sdclr", "evaluate", Path("runs/x")) == "sdclr evaluate runs/x"
    assert shlex.split(command("sdclr", "evaluate", Path("a b; echo pwned"))) == [
        "sdclr",
        "evaluate",
        "a b; echo pwned",
    ]
    assert command("sdclr", "evaluate", Path("-x")) == "sdclr evaluate ./-x"


def tokens(text: str) -> set[str]:
    parser = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable(
        ["table", "strikethrough"]
    )
    kinds = set()
    for block in parser.parse(text):
        kinds |= {block.type, *(token.type for token in block.children or ())}
    return kinds


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_holds_text_and_nothing_else(text: str) -> None:
    plain = {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}
    assert tokens(markdown_line(text)) <= plain
    assert tokens(f"Arm {markdown(text)}") <= plain
    for address in ("http://", "https://", "www."):
        assert address not in markdown(text), "renderers make links of bare addresses"


def test_markdown_leaves_ordinary_words_alone() -> None:
    words = "Std (lower is better), few_shot: 61.23 ± 1.10 - 0.5 [0.1]".replace("[", "").replace(
        "]", ""
    )
    assert markdown_line(words) == words


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", " =", "＝"])
def test_no_cell_is_a_formula(sign: str, text: str) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerow(csv_row([f"{sign}cmd|' /C calc'!A0{text}"]))
    (cell,) = next(csv.reader(io.StringIO(stream.getvalue())))
    assert cell.startswith("'")
    assert "\n" not in stream.getvalue().rstrip("\r\n")


@pytest.mark.parametrize("value", [-1.5, 3, "-1.5", "+2e-3", "-", "SDCLR", ""])
def test_numbers_and_words_are_no_formulas(value: object) -> None:
    assert csv_cell(value) == value


@pytest.mark.parametrize(
    "name",
    ["=a.jpg", "-b.jpg", "'=a.jpg", "''=a.jpg", "'x", "'-", "-", "-1", "a'b", "", "@c", "＝d"],
)
def test_the_guard_of_a_cell_is_taken_off_again_exactly(name: str) -> None:
    assert without_guard(str(csv_cell(name))) == name


def test_latex_has_no_commands_of_a_name() -> None:
    assert latex("\\input{/etc/passwd} 50% $x$ a_b {c} #1 ~ ^ & <>") == (
        "\\textbackslash{}input\\{/etc/passwd\\} 50\\% \\$x\\$ a\\_b \\{c\\} \\#1 \\textasciitilde{} "
        "\\textasciicircum{} \\& \\textless{}\\textgreater{}"
    )


def test_generated_names_stay_names_everywhere() -> None:
    rng = random.Random(0)
    for _ in range(300):
        text = "".join(rng.choice(HOSTILE) for _ in range(3))
        assert one_line(text).isprintable()
        assert tokens(markdown_line(text)) <= {
            "paragraph_open",
            "paragraph_close",
            "inline",
            "text",
            "text_special",
        }
