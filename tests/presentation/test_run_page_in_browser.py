"""The page of a real run in Chromium: silent, usable by everybody, nothing sticks out, its numbers are the files'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from browsers import DESKTOP, PHONE, open_page, serious_findings, sideways
from sdclr import Run, compare, evaluate, pretrain, recipe
from sdclr.presentation.progress import NoProgress
from sdclr.workflows.reports import report

pytestmark = pytest.mark.tools


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    tiny = ["epochs=2", "views.size=8", "backbone.width=4", "batch_size=200", "record_images=true"]
    folder = tmp_path_factory.mktemp("page") / "run"
    run = pretrain(recipe("digits_sdclr").with_overrides(tiny), folder)
    evaluate(run, probes=["knn", "linear"])
    compare(run, ["untrained", "pixels"], probes=["linear"])
    report([folder], {"html"}, progress=NoProgress())
    return run


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_everybody_can_read_the_page_of_a_run(
    browser: Any, run: Run, size: tuple[int, int], scheme: str
) -> None:
    with open_page(browser, run.folder / "report.html", size, scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert sideways(page) == 0
        assert serious_findings(page) == []


def test_on_a_phone_tables_fit_and_what_is_wider_says_so(browser: Any, run: Run) -> None:
    with open_page(browser, run.folder / "report.html", PHONE) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        tables = page.evaluate(
            "[...document.querySelectorAll('.scroll:has(.stack)')].map((one) => "
            "[one.getAttribute('aria-label'), one.scrollWidth - one.clientWidth])"
        )
        assert {name for name, _ in tables} >= {"What training changed", "Settings", "Environment"}
        assert [name for name, over in tables if over > 0] == []
        plots = page.evaluate(
            "[...document.querySelectorAll('.plot')].map((one) => [one.scrollWidth > one.clientWidth, "
            "getComputedStyle(one, '::before').content.includes('scroll sideways')])"
        )
        assert any(is_wider for is_wider, _ in plots)
        assert [is_wider for is_wider, _ in plots] == [says_so for _, says_so in plots]


def test_the_numbers_on_the_page_are_those_of_the_files(browser: Any, run: Run) -> None:
    found = json.loads((run.folder / "against.json").read_text())
    evaluation = json.loads(run.evaluation_path("cached").read_text())
    with open_page(browser, run.folder / "report.html") as page:
        rows = page.evaluate(
            "[...document.querySelectorAll('[id^=differences] table tbody tr')].map((row) => "
            "[...row.cells].map((cell) => cell.dataset.value ?? cell.textContent))"
        )
        assert [[row[1], float(row[4]), float(row[5]), int(row[6])] for row in rows] == [
            [p["rival"], p["all"]["difference"], p["few"]["difference"], p["num_tested"]]
            for p in found["pairs"]
        ]
        assert [row[2] for row in rows] == [f"{100 * p['ours']:.2f}" for p in found["pairs"]]
        results = page.evaluate(
            "[...document.querySelectorAll('.results tbody tr:not(.group)')].map((row) => "
            "row.cells[row.cells.length - 1].textContent.trim())"
        )
        assert results == [
            f"{100 * evaluation['probes'][probe]['summary']['all']:.2f}"
            for probe in ("linear", "knn")
        ]


def test_a_table_sorts_by_a_click_and_by_the_keyboard(browser: Any, run: Run) -> None:
    with open_page(browser, run.folder / "report.html") as page:
        page.locator("[id^=classes] summary").click()
        table = page.locator("[id^=classes] table")
        values = (
            "(table) => [...table.tBodies[0].rows].map((row) => Number(row.cells[2].textContent))"
        )
        falling = table.evaluate(values)
        assert falling == sorted(falling, reverse=True)
        header = table.locator("thead th").nth(2)
        header.locator("button").click()
        assert table.evaluate(values) == falling[::-1]
        assert header.get_attribute("aria-sort") == "ascending"
        header.locator("button").press("Enter")
        assert table.evaluate(values) == falling
        assert header.get_attribute("aria-sort") == "descending"


def test_the_data_of_a_figure_can_be_downloaded(browser: Any, run: Run, tmp_path: Path) -> None:
    with open_page(browser, run.folder / "report.html") as page:
        with page.expect_download() as begun:
            page.locator('a.data[download="loss.csv"]').click()
        begun.value.save_as(tmp_path / "loss.csv")
    lines = (tmp_path / "loss.csv").read_text().splitlines()
    assert lines[0] == "line,run,epoch,value"
    assert [float(line.split(",")[-1]) for line in lines[1:]] == [
        entry["loss"] for entry in run.metrics()
    ]


def test_labels_of_figures_do_not_touch_in_the_browsers_own_fonts(browser: Any, run: Run) -> None:
    overlaps = """() => [...document.querySelectorAll('figure svg')].flatMap((svg) => {
      const boxes = [...svg.querySelectorAll('text')].map((text) => (
        [text.textContent, text.getBoundingClientRect()]
      ));
      const touches = (a, b) => (
        a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2
      );
      return boxes.flatMap(([word, a], i) => (
        boxes.slice(i + 1).filter(([, b]) => touches(a, b)).map(([other]) => `${word} | ${other}`)
      ));
    })"""
    with open_page(browser, run.folder / "report.html") as page:
        assert page.evaluate(overlaps) == []
