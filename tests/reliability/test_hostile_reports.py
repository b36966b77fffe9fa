"""Names in a report stay names on a terminal, in Markdown, CSV, LaTeX, and on a page whose policy allows nothing."""

from __future__ import annotations

import csv
import io
import re

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from html_page import report
from sdclr.mean_std import MeanStd
from sdclr.presentation import paper_table, tables
from sdclr.presentation.html import render_html
from sdclr.presentation.pages import allowed, source
from sdclr.presentation.paper import COLUMNS, SETTINGS, PaperArm, PaperRow, PaperTable

pytestmark = pytest.mark.usefixtures("light_figures")

HOSTILE = [
    "\x1b[2J\x1b]0;title\x07",
    "a\nerror: forged",
    "[link](http://evil)",
    "![image](http://evil) https://evil www.evil.example",
    "<script>alert(1)</script>",
    "a | b | c",
    "=HYPERLINK(1)",
    "@SUM(1)",
    "\\input{/etc/passwd} & % $x$",
    "[red]x[/red] :fire:",
    "\u202egnp",
]


def paper(word: str) -> PaperTable:
    """``word`` stands wherever a text from a run folder is shown."""
    values = {key: MeanStd(0.5, 0.01, 2) for key in COLUMNS}
    settings = [word] * len(SETTINGS)
    rows = [PaperRow("split", word, settings, values), PaperRow("mean", word, settings, values)]
    return PaperTable(word, word, word, {word: word}, [PaperArm(word, word, rows)], [word], word)


@pytest.mark.parametrize("word", HOSTILE)
def test_on_a_terminal_nothing_is_done_and_nothing_is_read_as_a_style(word: str) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=400)
    tables.render_terminal(report(word), console)
    paper_table.render_terminal(paper(word), console)
    text = stream.getvalue()
    assert text.replace("\n", "").isprintable()
    assert not any(line.startswith("error:") for line in text.splitlines())
    if "[red]" in word:
        assert text.count("[red]x[/red] :fire:") > 5


@pytest.mark.parametrize("word", HOSTILE)
def test_markdown_has_the_same_shape_whatever_the_names(word: str) -> None:
    def shape(text: str) -> list[str]:
        tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
        kinds = [token.type for token in tokens if token.type != "inline"]
        inline = {child.type for token in tokens for child in token.children or ()}
        return [*kinds, *sorted(inline - {"text_special"})]

    assert shape(tables.to_markdown(report(word))) == shape(tables.to_markdown(report("SDCLR")))
    assert shape(paper_table.to_markdown(paper(word))) == shape(
        paper_table.to_markdown(paper("SDCLR"))
    )
    assert "http:" not in tables.to_markdown(report(word))


@pytest.mark.parametrize("word", HOSTILE)
def test_no_cell_of_a_csv_is_a_formula(word: str) -> None:
    for text in (tables.to_csv(report(word)), paper_table.to_csv(paper(word))):
        lines = list(csv.reader(io.StringIO(text)))
        assert len(lines) == 3
        for cell in (cell for line in lines for cell in line):
            assert cell == "-" or cell[:1] not in "=+-@\t\r" or not cell
            assert cell.isprintable()


@pytest.mark.parametrize("word", HOSTILE)
def test_latex_has_the_same_commands_whatever_the_names(word: str) -> None:
    def commands(text: str) -> set[str]:
        return set(re.findall(r"\\[a-z]+", text)) - {
            "\\textbackslash",
            "\\textbar",
            "\\textless",
            "\\textgreater",
        }

    def ends(text: str) -> int:
        return text.count(" \\\\\n")

    text, plain = paper_table.to_latex(paper(word)), paper_table.to_latex(paper("SDCLR"))
    assert commands(text) - {"\\x", "\\n", "\\u"} == commands(plain)
    assert ends(text) == ends(plain)
    for line, other in zip(text.splitlines(), plain.splitlines(), strict=True):
        assert len(re.findall(r"(?<!\\)&", line)) == len(re.findall(r"(?<!\\)&", other))


@pytest.mark.parametrize("word", HOSTILE)
def test_a_page_loads_nothing_runs_its_own_script_alone_and_shows_what_is_not_seen(
    word: str,
) -> None:
    page = render_html(report(word))
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert f"script-src {allowed(source('report.js'))};" in policy[1], "the page's own, no other"
    assert "unsafe" not in policy[1].replace("style-src 'unsafe-inline'", "")
    assert page.index("Content-Security-Policy") < page.index("<title>"), (
        "before anything that it is for"
    )
    assert page.replace("\n", "").isprintable()
