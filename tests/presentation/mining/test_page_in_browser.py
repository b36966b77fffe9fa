"""The page as a reader has it: in Chromium, from a file, with nobody to ask for anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mined_page import many_rows

from browsers import DESKTOP, PHONE, open_page, serious_findings, sideways
from mined_images import digits, hostile, in_memory
from sdclr.presentation.mined import MinedImages
from sdclr.presentation.mining import exports
from sdclr.presentation.mining.exports import EXPORTS
from sdclr.presentation.mining.page import pictured_rows, render_mined_html, short_number
from sdclr.safe_text import one_line

pytestmark = pytest.mark.tools

SHOWN = 300
"""Images of the sheet that are shown as pictures."""

Made = Callable[[], tuple[MinedImages, dict[int, bytes]]]


def many() -> tuple[MinedImages, dict[int, bytes]]:
    mined = many_rows()
    picture = digits()[1][0]
    return mined, {int(row): picture for row in pictured_rows(mined, top=1000)}


@pytest.fixture(scope="module")
def file_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Made], Path]:
    """The page of a collection as a file, written once."""
    folder = tmp_path_factory.mktemp("pages")

    def write(made: Made) -> Path:
        path = folder / f"{made.__name__}.html"
        if not path.exists():
            top = 1000 if made is many else SHOWN
            path.write_text(render_mined_html(*made(), top=top), encoding="utf-8")
        return path

    return write


def tiles(page: Any) -> list[int]:
    return list(page.eval_on_selector_all("#sheet .tile", "all => all.map(t => +t.dataset.row)"))


def table(page: Any) -> list[int]:
    return list(page.eval_on_selector_all("#all .check", "all => all.map(t => +t.dataset.row)"))


def filter_by(page: Any, **values: str) -> None:
    """Set filters, and wait until the page shows what passes."""
    for name, value in values.items():
        place = page.locator(f"#{name.replace('_', '-')}")
        if name in ("sort", "only"):
            place.select_option(value)
        else:
            place.fill(value)
    page.evaluate(
        "document.querySelector('#all tbody').prepend(document.createElement('tr'));"
        "document.querySelector('#filters').dispatchEvent(new Event('input'))"
    )
    page.wait_for_selector("#all tbody tr:empty", state="detached")


def show_all_groups(page: Any) -> None:
    # at once: scrolling shows more groups as well, and the button is gone with the last
    page.evaluate(
        "() => { const more = document.querySelector('#more'); while (!more.hidden) more.click(); }"
    )


def choose(page: Any, rows: list[int]) -> None:
    for row in rows:
        page.locator(f'#sheet .tile[data-row="{row}"]').click()


def download(page: Any, name: str, scope: str = "selected") -> bytes:
    page.evaluate("document.querySelector('#leave').open = true")
    page.locator("#scope").select_option(scope)
    page.locator("#format").select_option(name)
    with page.expect_download() as waiting:
        page.locator("#download").click()
    assert waiting.value.suggested_filename == EXPORTS[name].file_name
    return Path(waiting.value.path()).read_bytes()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("made", [digits, hostile])
def test_everybody_can_use_the_page_and_nothing_sticks_out(
    browser: Any, file_of: Callable[[Made], Path], made: Made, size: tuple[int, int], scheme: str
) -> None:
    with open_page(browser, file_of(made), size, scheme) as page:
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        page.wait_for_selector("#tray .tile")
        page.locator("#sheet .tile").first.click()
        assert sideways(page) == 0
        assert serious_findings(page) == []


def test_hostile_names_are_shown_and_do_nothing(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = hostile()
    with open_page(browser, file_of(hostile)) as page:
        shown = page.eval_on_selector_all("#all td.path", "all => all.map(t => t.textContent)")
        for name in mined.names:
            assert one_line(name) in shown
        assert page.locator("h1").text_content() == mined.title
        assert page.locator("script").count() == 1, "the data are read and taken away"
        for row in tiles(page):
            page.locator(f'#sheet .tile[data-row="{row}"]').focus()
            assert page.locator("#seen b").text_content() == one_line(mined.names[row])


def test_without_javascript_the_first_groups_are_there(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    with open_page(browser, file_of(digits), script=False) as page:
        assert tiles(page)[:100] == mined.sheet[:100].tolist()
        assert page.locator("#sheet .tile img").first.is_visible()
        assert page.get_by_text("If they do not, JavaScript is off").is_visible()
        assert not page.locator("#dock").is_visible()
        assert sideways(page) == 0


def test_numbers_on_the_page_are_those_of_the_collection(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    for made in (digits, hostile):
        mined, _ = made()
        with open_page(browser, file_of(made)) as page:
            for row in tiles(page)[:40]:
                one = page.locator(f'#sheet .tile[data-row="{row}"]')
                assert one.locator(".score").text_content() == short_number(mined.score[row])
                one.focus()
                words = str(page.locator("#seen").text_content())
                assert (
                    f"score {float(mined.score[row])!r} · rank {mined.rank[row]} of {len(mined)}"
                    in words
                )
                assert (
                    f"group {mined.group[row]} of {mined.group_size[mined.group[row]]} image"
                    in words
                )
                for name, values in mined.components.items():
                    if not np.isnan(values[row]):
                        assert f"{one_line(name)} {float(values[row])!r}" in words


def test_groups_are_in_the_order_of_the_sheet_and_say_how_many_look_alike(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    with open_page(browser, file_of(digits)) as page:
        show_all_groups(page)
        assert tiles(page) == mined.sheet[:SHOWN].tolist()
        titles = page.locator("#sheet h3").all_text_contents()
        groups = list(dict.fromkeys(mined.group[mined.sheet[:SHOWN]].tolist()))
        for title, number in zip(titles, groups, strict=True):
            size = int(mined.group_size[number])
            words = f"{size} images look alike" if size > 1 else "1 image alone"
            assert title == f"Group {number} {words}"


def test_sorting_orders_table_and_groups(browser: Any, file_of: Callable[[Made], Path]) -> None:
    mined, _ = digits()
    rows = np.arange(len(mined))
    size = mined.group_size[mined.group]
    in_order = {row: i for i, row in enumerate(exports.in_sheet_order(mined, rows.tolist()))}
    by_place = np.array([in_order[row] for row in rows])
    expected = {
        "sheet": np.argsort(by_place),
        "score": np.argsort(mined.rank),
        "component-0": np.argsort(-mined.components["knn_1"], kind="stable"),
        "component-1": np.argsort(-mined.components["lof_20"], kind="stable"),
        "path": np.array(sorted(rows, key=lambda row: mined.names[row])),
        "small": np.lexsort((by_place, size)),
        "large": np.lexsort((by_place, -size)),
        "collection": rows,
    }
    with open_page(browser, file_of(digits)) as page:
        assert page.locator("#sort option").count() == len(expected)
        for key, order in expected.items():
            filter_by(page, sort=key)
            assert table(page) == order[:50].tolist(), key
            show_all_groups(page)
            shown = set(mined.sheet[:SHOWN].tolist())
            first = next(row for row in order.tolist() if row in shown)
            assert tiles(page)[0] == first, key
            assert sorted(tiles(page)) == sorted(shown), key


def test_filters_leave_what_passes_them(browser: Any, file_of: Callable[[Made], Path]) -> None:
    mined, _ = digits()
    size = mined.group_size[mined.group]
    tests = [
        ({"find": "DIGITS/9/"}, np.array(["digits/9/" in name for name in mined.names])),
        ({"size_from": "3", "size_to": "5"}, (size >= 3) & (size <= 5)),
        ({"score_from": "2.5"}, mined.score >= 2.5),
        ({"score_to": "1.9", "find": "digits"}, mined.score <= 1.9),
        ({"only": "copies"}, mined.is_copy),
        ({"only": "junk"}, mined.is_junk),
        ({"only": "sheet"}, np.isin(np.arange(len(mined)), mined.sheet)),
        ({"find": "no such name"}, np.zeros(len(mined), dtype=bool)),
    ]
    with open_page(browser, file_of(digits)) as page:
        for values, passes in tests:
            filter_by(page, **values)
            order = [row for row in exports.in_sheet_order(mined, range(len(mined))) if passes[row]]
            assert table(page) == order[:50], values
            assert f"{len(order)} image" in str(page.locator("#all-words").text_content())
            show_all_groups(page)
            assert tiles(page) == [row for row in mined.sheet[:SHOWN].tolist() if passes[row]], (
                values
            )
            page.locator("#clear-filters").click()
        assert len(table(page)) == 50


def test_click_shift_click_and_keys_select(browser: Any, file_of: Callable[[Made], Path]) -> None:
    with open_page(browser, file_of(digits)) as page:
        first = tiles(page)
        locate = lambda row: page.locator(f'#sheet .tile[data-row="{row}"]')  # noqa: E731
        locate(first[1]).click()
        locate(first[4]).click(modifiers=["Shift"])
        pressed = '#sheet .tile[aria-pressed="true"]'
        assert page.locator(pressed).count() == 4
        assert page.locator("#count").text_content() == "4 selected"
        locate(first[2]).click()
        assert page.locator("#count").text_content() == "3 selected"
        page.locator("#clear").click()
        assert page.locator("#count").text_content() == "0 selected"
        locate(first[0]).focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Space")
        assert locate(first[1]).get_attribute("aria-pressed") == "true"
        page.keyboard.press("Shift+ArrowRight")
        assert page.locator("#count").text_content() == "2 selected"
        page.keyboard.press("ArrowDown")
        page.keyboard.press("w")
        assert page.locator("#sheet .mark:visible").all_text_contents() == ["wanted"]
        assert page.locator('#sheet .tile[tabindex="0"]').count() == 1


def test_marks_go_to_the_selected_images_that_the_filters_show(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    order = mined.sheet.tolist()
    hidden, seen = order[:2], next(r for r in order[2:] if mined.score[r] < mined.score[order[1]])
    limit = f"{float(mined.score[seen])!r}"
    with open_page(browser, file_of(digits)) as page:
        choose(page, hidden)
        filter_by(page, score_to=limit, sort="score")
        assert page.locator("#count").text_content() == "2 selected, 2 hidden by the filters"
        assert page.locator("#want").is_disabled()
        page.locator(f'#all .check[data-row="{seen}"]').click()
        page.locator("#want").click()
        assert page.locator("#status").text_content() == (
            "1 image: wanted. 2 selected images that the filters hide are left as before. "
            "Download the CSV to keep the marks."
        )
        page.locator(f'#all .check[data-row="{seen}"]').press("w")
        page.locator("#clear-filters").click()
        filter_by(page, only="wanted")
        assert table(page) == [seen]
        option = page.locator('#scope [value="selected"]')
        assert option.text_content() == "selected images (3, with 2 that the filters hide)"
        assert download(page, "paths").count(b"\n") == 3


def test_all_that_the_filters_show_is_selected_at_once(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    num_nines = sum("digits/9/" in name for name in mined.names)
    with open_page(browser, file_of(digits)) as page:
        filter_by(page, find="digits/9/")
        page.locator("#choose-listed").click()
        assert page.locator("#count").text_content() == f"{num_nines} selected"
        assert f"{num_nines} images that the filters show" in str(
            page.locator("#status").text_content()
        )


def test_a_shift_click_selects_across_pages_of_the_table(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    order = exports.in_sheet_order(mined, range(len(mined)))
    with open_page(browser, file_of(digits)) as page:
        page.locator("#all .check").nth(48).click()
        page.locator("#next").click()
        page.locator("#all .check").nth(1).click(modifiers=["Shift"])
        assert page.locator("#count").text_content() == "4 selected"
        paths = "".join(f"{mined.names[row]}\n" for row in order[48:52])
        assert download(page, "paths") == paths.encode()


def test_a_whole_group_is_selected_copies_and_junk_included(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    with open_page(browser, file_of(digits)) as page:
        box = page.locator("#sheet .group").nth(2)
        number = int(box.get_attribute("data-group"))
        box.locator(".group-select").click()
        assert page.locator("#count").text_content() == f"{mined.group_size[number]} selected"
        page.locator("#sheet .tile").first.focus()
        page.keyboard.press("g")
        first = int(mined.group[mined.sheet[0]])
        both = mined.group_size[number] + mined.group_size[first]
        assert page.locator("#count").text_content() == f"{both} selected"


def test_copies_unfold_and_fold(browser: Any, file_of: Callable[[Made], Path]) -> None:
    mined, _ = digits()
    with open_page(browser, file_of(digits)) as page:
        show_all_groups(page)
        button = page.locator("#sheet .copies").first
        row = int(button.locator("xpath=..").locator(".tile").get_attribute("data-row"))
        folded = np.flatnonzero((mined.duplicate_of == row) & mined.is_copy).tolist()
        assert button.text_content() == f"+ {len(folded)} copies"
        before = len(tiles(page))
        button.click()
        assert set(folded) <= set(tiles(page))
        assert len(tiles(page)) == before + len(folded)
        button.click()
        assert len(tiles(page)) == before


def test_junk_lies_in_its_own_tray_with_its_kinds(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    with open_page(browser, file_of(digits)) as page:
        assert page.locator("#tray .tile").count() == 0
        page.locator("#junk summary").click()
        page.wait_for_selector("#tray .tile")
        rows = page.eval_on_selector_all("#tray .tile", "all => all.map(t => +t.dataset.row)")
        assert sorted(rows) == np.flatnonzero(mined.is_junk).tolist()
        assert "blank 3, blurred" in str(page.locator("#junk summary").text_content())
        assert not set(rows) & set(tiles(page))


def tray(page: Any) -> list[int]:
    return list(page.eval_on_selector_all("#tray .tile", "all => all.map(t => +t.dataset.row)"))


def test_search_sort_and_filter_act_on_junk_too(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    junk = np.flatnonzero(mined.is_junk).tolist()
    by_path = sorted(junk, key=lambda row: mined.names[row])
    low = sorted(junk, key=lambda row: mined.score[row])[:2]
    with open_page(browser, file_of(digits)) as page:
        filter_by(page, only="junk", sort="path")
        assert page.locator("#junk").get_attribute("open") is not None
        assert tray(page) == by_path
        assert not page.locator("#junk-words").is_visible()
        assert page.locator("#sheet-words").text_content() == (
            f"None of the first {SHOWN} images of the sheet passes the filters. "
            "Suspected junk is set aside, with its pictures below."
        )
        filter_by(page, only="all", sort="score", score_to=f"{float(mined.score[low[1]])!r}")
        assert tray(page) == [row for row in np.argsort(mined.rank) if row in low]
        words = f"2 of {len(junk)} images pass the filters."
        assert page.locator("#junk-words").text_content() == words
        filter_by(page, score_to="", find="no such name")
        assert tray(page) == []
        assert page.locator("#sheet-words").text_content() == "No image passes the filters."
        page.locator("#junk summary").click()
        page.locator("#clear-filters").click()
        filter_by(page, only="copies")
        assert "Copies are folded" in str(page.locator("#sheet-words").text_content())
        filter_by(page, only="unmarked")
        page.locator("#junk summary").click()
        page.wait_for_selector("#tray .tile")
        page.locator("#tray .tile").first.press("n")
        assert len(tray(page)) == len(junk) - 1


@pytest.mark.parametrize("name", list(EXPORTS))
@pytest.mark.parametrize("made", [digits, hostile, in_memory])
def test_a_download_has_the_bytes_that_python_writes(
    browser: Any, file_of: Callable[[Made], Path], made: Made, name: str
) -> None:
    mined, _ = made()
    everything = exports.in_sheet_order(mined, range(len(mined)))
    with open_page(browser, file_of(made)) as page:
        came_with = exports.first_marks(mined)
        marks: dict[int, bool | None] = dict(came_with)
        for row, key in zip(mined.sheet[:3].tolist(), "wnu", strict=True):
            page.locator(f'#sheet .tile[data-row="{row}"]').press(key)
            marks[row] = key == "w"
            if key == "u":
                del marks[row]
        marks |= {row: None for row in came_with if row not in marks}
        choose(page, [mined.sheet[4], mined.sheet[1]])
        chosen = [int(mined.sheet[1]), int(mined.sheet[4])]
        assert download(page, name) == EXPORTS[name].write(mined, chosen, marks)
        assert download(page, name, "listed") == EXPORTS[name].write(mined, everything, marks)
        assert exports.warning(mined, name, everything) in str(
            page.locator("#status").text_content()
        )
        has_removed = name in ("csv", "fiftyone")
        marked = [row for row, mark in marks.items() if has_removed or mark is not None]
        marked = exports.in_sheet_order(mined, marked)
        assert download(page, name, "marked") == EXPORTS[name].write(mined, marked, marks)


def test_the_selected_paths_are_copied(browser: Any, file_of: Callable[[Made], Path]) -> None:
    mined, _ = digits()
    with open_page(browser, file_of(digits)) as page:
        page.evaluate(
            "navigator.clipboard.writeText = async (text) => { document.body.dataset.copied = text; }; 1"
        )
        choose(page, mined.sheet[[2, 0]].tolist())
        page.locator("#leave summary").click()
        page.locator("#copy").click()
        page.wait_for_selector("body[data-copied]")
        assert page.evaluate("document.body.dataset.copied") == "".join(
            f"{mined.names[row]}\n" for row in mined.sheet[[0, 2]]
        )
        assert page.locator("#status").text_content() == "Copied 2 images."


def test_where_a_page_may_not_copy_the_text_is_shown_to_copy_by_hand(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    with open_page(browser, file_of(digits)) as page:
        page.evaluate("navigator.clipboard.writeText = () => Promise.reject(new Error('no')); 1")
        choose(page, [int(mined.sheet[0])])
        page.locator("#leave summary").click()
        page.locator("#copy").click()
        assert page.locator("#text").input_value() == f"{mined.names[mined.sheet[0]]}\n"
        assert serious_findings(page) == []
        page.locator("#done").click()
        assert not page.locator("#by-hand").is_visible()


def test_marks_filter_and_are_kept_for_feedback(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    with open_page(browser, file_of(digits)) as page:
        choose(page, mined.sheet[:3].tolist())
        page.locator("#want").click()
        page.locator("#clear").click()
        choose(page, [int(mined.sheet[5])])
        page.locator("#refuse").click()
        filter_by(page, only="wanted")
        assert table(page) == mined.sheet[:3].tolist()
        filter_by(page, only="unwanted")
        assert table(page) == [int(mined.sheet[5])]
        page.locator("#unmark").click()
        filter_by(page, only="unmarked")
        assert f"{len(mined) - 3} images" in str(page.locator("#all-words").text_content())


def test_what_the_filters_show_follows_selection_and_marks(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    first = mined.sheet[:3].tolist()
    words = lambda page: str(page.locator("#all-words").text_content())  # noqa: E731
    with open_page(browser, file_of(digits)) as page:
        choose(page, first)
        filter_by(page, only="selected")
        page.locator(f'#all .check[data-row="{first[0]}"]').click()
        assert table(page) == first[1:]
        assert words(page).startswith("2 images of")
        assert tiles(page) == first[1:]
        paths = "".join(f"{mined.names[row]}\n" for row in first[1:])
        assert download(page, "paths", "listed") == paths.encode()
        filter_by(page, only="unmarked")
        page.locator("#clear").click()
        page.locator("#next").click()
        show_all_groups(page)
        num_tiles, on_second = len(tiles(page)), table(page)
        page.locator(f'#sheet .tile[data-row="{first[1]}"]').press("w")
        assert first[1] not in tiles(page)
        assert len(tiles(page)) == num_tiles - 1, "as many groups as before are built"
        assert table(page)[:-1] == on_second[1:], "the same page of the table"
        assert int(page.evaluate("document.activeElement.dataset.row")) == first[2]
        assert words(page).startswith(f"{len(mined) - 1} images of")


def test_what_was_just_typed_counts_for_an_export(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    with open_page(browser, file_of(digits)) as page:
        page.evaluate("document.querySelector('#leave').open = true")
        page.locator("#scope").select_option("listed")
        with page.expect_download() as waiting:
            page.evaluate(
                "document.querySelector('#find').value = 'digits/9/';"
                "document.querySelector('#filters').dispatchEvent(new Event('input'));"
                "document.querySelector('#download').click()"
            )
        lines = Path(waiting.value.path()).read_text().splitlines()
        assert sorted(lines) == sorted(name for name in mined.names if "digits/9/" in name)


def test_the_words_on_an_image_follow_its_mark(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    with open_page(browser, file_of(digits)) as page:
        one = page.locator("#sheet .tile").first
        for key, words in (("w", "· wanted"), ("n", "· not wanted")):
            one.press(key)
            assert str(page.locator("#seen").text_content()).endswith(words)
        one.press("u")
        assert "wanted" not in str(page.locator("#seen").text_content())


def leaves_unsaved_marks(page: Any) -> bool:
    """Whether the browser would ask before the page is left."""
    return bool(
        page.evaluate(
            "!window.dispatchEvent(new Event('beforeunload', { cancelable: true }))",
        )
    )


def test_an_export_is_of_the_marks_as_soon_as_there_are_any_unless_another_is_chosen(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    row = int(mined.sheet[0])
    chosen = lambda page: page.evaluate("[scope.value, format.value]")  # noqa: E731
    with open_page(browser, file_of(digits)) as page:
        assert chosen(page) == ["selected", "paths"]
        page.locator(f'#sheet .tile[data-row="{row}"]').press("w")
        assert chosen(page) == ["marked", "csv"]
        page.locator("#leave summary").click()
        with page.expect_download() as waiting:
            page.locator("#download").click()
        written = Path(waiting.value.path()).read_bytes()
        assert written == EXPORTS["csv"].write(mined, [row], {row: True})
        page.locator("#format").select_option("cvat")
        page.locator(f'#sheet .tile[data-row="{row}"]').press("n")
        assert chosen(page) == ["marked", "cvat"]
    with open_page(browser, file_of(hostile)) as page:
        assert chosen(page) == ["marked", "csv"], "of a page that comes with marks"


def test_a_mark_that_is_taken_away_is_unsaved_until_a_download_says_so(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = hostile()
    marks = exports.first_marks(mined)
    wanted = next(row for row, mark in marks.items() if mark)
    others = {row: mark for row, mark in marks.items() if row != wanted}
    everything = exports.in_sheet_order(mined, marks)
    with open_page(browser, file_of(hostile)) as page:
        assert not leaves_unsaved_marks(page), "scores.csv has them"
        filter_by(page, only="wanted")
        page.locator("#all .check").click()
        page.locator("#unmark").click()
        assert leaves_unsaved_marks(page)
        still = exports.in_sheet_order(mined, others)
        assert download(page, "paths", "marked") == EXPORTS["paths"].write(mined, still, others)
        assert leaves_unsaved_marks(page), "a list has no marks"
        removed = others | {wanted: None}
        assert download(page, "csv", "marked") == EXPORTS["csv"].write(mined, everything, removed)
        assert not leaves_unsaved_marks(page)


def test_a_mark_of_an_earlier_download_is_removed_in_the_next(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    first, second = mined.sheet[:2].tolist()
    with open_page(browser, file_of(digits)) as page:
        page.locator(f'#sheet .tile[data-row="{first}"]').press("w")
        page.locator(f'#sheet .tile[data-row="{second}"]').press("n")
        marks = {first: True, second: False}
        assert download(page, "csv", "marked") == EXPORTS["csv"].write(mined, list(marks), marks)
        page.locator(f'#sheet .tile[data-row="{first}"]').press("u")
        assert leaves_unsaved_marks(page)
        after = EXPORTS["csv"].write(mined, list(marks), {first: None, second: False})
        assert download(page, "csv", "marked") == after
        third = int(mined.sheet[2])
        page.locator(f'#sheet .tile[data-row="{third}"]').press("w")
        page.locator(f'#sheet .tile[data-row="{third}"]').press("u")
        choose(page, [third])
        never = EXPORTS["csv"].write(mined, [third], {})
        assert download(page, "csv") == never, "no table has had its mark"
        assert not leaves_unsaved_marks(page)


def test_the_map_shows_an_image_under_the_pointer_and_goes_to_it(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = digits()
    left, low = mined.place.min(axis=0)
    right, high = mined.place.max(axis=0)
    with open_page(browser, file_of(digits)) as page:
        canvas = page.locator("#map")
        canvas.scroll_into_view_if_needed()
        page.wait_for_selector("#ramp[style]")
        width, height = page.evaluate("[map.clientWidth, map.clientHeight]")
        row = int(mined.place[:, 0].argmax())  # alone at the right edge
        x = 14 + (mined.place[row, 0] - left) / (right - left) * (width - 28)
        y = height - 14 - (mined.place[row, 1] - low) / (high - low) * (height - 28)
        canvas.hover(position={"x": float(x), "y": float(y)})
        assert page.locator("#seen b").text_content() == mined.names[row]
        canvas.click(position={"x": float(x), "y": float(y)})
        assert int(page.evaluate("document.activeElement.dataset.row")) == row
        canvas.focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        assert page.evaluate("'row' in document.activeElement.dataset")


def test_keys_win_over_a_pointer_that_rests_while_the_page_scrolls(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    scroll_under = """([selector, kind]) => new Promise((done) => {
        document.querySelector(selector).addEventListener(kind, () => setTimeout(done), { once: true });
        window.scrollBy(0, 900);
    })"""
    with open_page(browser, file_of(digits)) as page:
        canvas = page.locator("#map")
        canvas.scroll_into_view_if_needed()
        page.wait_for_selector("#ramp[style]")
        canvas.hover()
        page.evaluate("map.focus({ preventScroll: true })")
        page.keyboard.press("ArrowLeft")
        reached = page.locator("#seen b").text_content()
        page.evaluate(scroll_under, ["#map", "pointerleave"])
        page.keyboard.press("Enter")
        assert page.evaluate("'row' in document.activeElement.dataset")
        assert page.locator("#seen b").text_content() == reached

        page.evaluate("window.scrollTo(0, 0)")
        first = page.locator("#sheet .tile").first
        first.hover()
        first.focus()
        page.evaluate(scroll_under, ["#sheet", "pointerover"])
        mined, _ = digits()
        assert page.locator("#seen b").text_content() == mined.names[tiles(page)[0]]


def test_the_map_finds_an_image_that_the_filters_hide(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    with open_page(browser, file_of(digits)) as page:
        filter_by(page, find="digits/0/")
        page.locator("#map").focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        assert page.evaluate("'row' in document.activeElement.dataset")


def test_a_hundred_thousand_images_are_rows_of_text_page_by_page(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    mined, _ = many()
    order = exports.in_sheet_order(mined, range(len(mined)))
    with open_page(browser, file_of(many)) as page:
        assert page.locator("#sheet .tile").count() < 400, "built as it is looked at"
        assert table(page) == order[:50]
        page.locator("#next").click()
        assert table(page) == order[50:100]
        page.locator("#last").click()
        assert table(page) == order[-50:]
        page.locator("#page").fill("1001")
        page.locator("#page").press("Enter")
        assert table(page) == order[50_000:50_050]
        name = mined.names[order[77_777]]
        filter_by(page, find=name)
        assert table(page) == [order[77_777]]
        page.locator("#all .check").click()
        page.locator("#clear-filters").click()
        filter_by(page, sort="component-2")
        best = np.argsort(-mined.components["lof_20"], kind="stable")[:50]
        assert table(page) == best.tolist()
        assert download(page, "paths") == f"{name}\n".encode()
        assert download(page, "csv", "listed").count(b"\n") == len(mined) + 1


def test_paper_has_the_pictures_and_no_controls(
    browser: Any, file_of: Callable[[Made], Path]
) -> None:
    with open_page(browser, file_of(digits)) as page:
        page.emulate_media(media="print")
        assert page.locator("#sheet .tile img").first.is_visible()
        for control in ("#filters", "#dock", ".group-select"):
            assert not page.locator(control).first.is_visible()
        assert re.match(rb"%PDF", page.pdf())
