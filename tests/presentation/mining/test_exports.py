"""Every export says what MinedImages says, in a form that others read back."""

from __future__ import annotations

import csv
import io
import json
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest

from mined_images import HOSTILE_NAMES, digits, hostile
from sdclr.errors import ConfigError
from sdclr.presentation.mining import exports
from sdclr.presentation.mining.exports import EXPORTS, Export
from sdclr.safe_text import as_text, one_line, without_guard


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"))))


@pytest.mark.parametrize("name", list(EXPORTS))
def test_each_export_has_the_chosen_images_in_the_order_given(name: str) -> None:
    mined, _ = digits()
    rows = [20, 3, 250]
    content = EXPORTS[name].write(mined, rows, {3: True}).decode()
    places = [content.index(mined.names[row]) for row in rows]
    assert places == sorted(places)
    assert mined.names[4] not in content


@pytest.mark.parametrize("name", list(EXPORTS))
def test_an_export_of_nothing_is_still_of_its_format(name: str) -> None:
    mined, _ = digits()
    content = EXPORTS[name].write(mined, [], {}).decode()
    if EXPORTS[name].media_type == "application/json":
        json.loads(content)
    elif EXPORTS[name].media_type == "text/csv":
        assert len(content.splitlines()) == 1
    else:
        assert content == ""


def test_the_plain_list_has_the_bytes_of_the_file_system() -> None:
    mined, _ = hostile()
    lines = EXPORTS["paths"].write(mined, range(len(mined)), {}).split(b"\n")[:-1]
    whole = [name for name in HOSTILE_NAMES if "\n" not in name and "\r" not in name]
    assert len(lines) == len(HOSTILE_NAMES)
    assert [
        line.decode("utf-8", "surrogateescape")
        for line in lines
        if rb"\n" not in line and rb"\r" not in line
    ] == whole
    assert b"no text \xff\x80.jpg" in lines
    assert b"two\\nlines.jpg" in lines


def test_every_number_of_the_csv_reads_back_to_the_same_bits() -> None:
    mined, _ = hostile()
    found = rows_of(EXPORTS["csv"].write(mined, range(len(mined)), {}))
    np.testing.assert_array_equal([float(row["score"]) for row in found], mined.score)
    np.testing.assert_array_equal([int(row["rank"]) for row in found], mined.rank)
    np.testing.assert_array_equal([int(row["group"]) for row in found], mined.group)
    np.testing.assert_array_equal(
        [int(row["group_size"]) for row in found], mined.group_size[mined.group]
    )
    component = [float(row["path_"]) for row in found]
    np.testing.assert_array_equal(component, mined.components["path"])
    written = [one_line(as_text(name)) for name in mined.names]
    assert [without_guard(row["path"]) for row in found] == written


def test_the_csv_says_which_are_copies_junk_and_wanted() -> None:
    mined, _ = digits()
    marks = {0: True, 1: False}
    found = rows_of(EXPORTS["csv"].write(mined, range(len(mined)), marks))
    for row, cells in enumerate(found):
        original = mined.names[mined.duplicate_of[row]]
        assert cells["duplicate_of"] == (original if mined.is_copy[row] else "")
        assert bool(cells["junk"]) == mined.is_junk[row]
        assert cells["wanted"] == {0: "1", 1: "0"}.get(row, "")
    assert mined.is_copy.any()


def test_only_a_mark_that_was_taken_away_is_written_as_removed() -> None:
    mined, _ = digits()
    marks = {0: True, 1: None}
    for name, column in (("csv", "wanted"), ("fiftyone", "rarity_wanted")):
        found = rows_of(EXPORTS[name].write(mined, [0, 1, 2], marks))
        assert [row[column] for row in found] == ["1", "removed", ""]
    tasks = json.loads(EXPORTS["label_studio"].write(mined, [1], marks))
    assert tasks[0]["predictions"][0]["result"] == []


def test_marks_that_the_table_came_with_are_where_marks_start() -> None:
    mined, _ = hostile()
    assert exports.first_marks(mined) == {0: True, 1: False}
    assert exports.csv_header(mined).count("wanted") == 1


def test_no_two_columns_of_the_csv_have_one_name() -> None:
    mined, _ = hostile()
    header = exports.csv_header(mined)
    assert len(set(header)) == len(header)


def test_label_studio_gets_the_score_of_each_image_and_a_path_that_comes_back() -> None:
    mined, _ = hostile()
    tasks = json.loads(EXPORTS["label_studio"].write(mined, range(len(mined)), {2: False}))
    for row, task in enumerate(tasks):
        _, _, quoted = task["data"]["image"].partition("?d=")
        assert unquote_to_bytes(quoted) == mined.names[row].encode("utf-8", "surrogateescape")
        assert task["data"]["path"] == mined.names[row]
        assert task["data"]["score"] == mined.score[row]
    shares = [task["predictions"][0]["score"] for task in tasks]
    assert sorted(shares, reverse=True) == [shares[row] for row in np.argsort(mined.rank)]
    assert (min(shares), max(shares)) == (1 / len(mined), 1)
    assert tasks[2]["predictions"][0]["result"][0]["value"] == {"choices": ["not wanted"]}
    assert tasks[3]["predictions"][0]["result"] == []


def test_fiftyone_gets_whole_paths() -> None:
    mined, _ = digits()
    found = rows_of(EXPORTS["fiftyone"].write(mined, [5], {5: True}))
    assert found == [
        {
            "filepath": f"/photos/{mined.names[5]}",
            "rarity": repr(float(mined.score[5])),
            "rarity_rank": str(mined.rank[5]),
            "rarity_group": str(mined.group[5]),
            "rarity_wanted": "1",
        }
    ]


def test_what_a_format_cannot_hold_is_said() -> None:
    mined, _ = hostile()
    everything = range(len(mined))
    assert exports.warning(mined, "paths", everything).startswith("2 paths of 19 cannot")
    assert exports.warning(mined, "csv", [7]).startswith("1 path of 1 cannot")
    assert exports.warning(mined, "label_studio", everything) == ""
    assert exports.warning(mined, "paths", [0]) == ""


def test_the_order_of_the_page_is_the_sheet_and_behind_it_the_others_by_rank() -> None:
    mined, _ = digits()
    order = exports.in_sheet_order(mined, range(len(mined)))
    assert order[: len(mined.sheet)] == mined.sheet.tolist()
    others = order[len(mined.sheet) :]
    assert others == sorted(others, key=lambda row: mined.rank[row])
    assert sorted(order) == list(range(len(mined)))


def test_an_export_from_outside_is_an_entry_of_the_table() -> None:
    row = Export("names", "Names", "names.txt", "text/plain", lambda *_: b"", "mine:names")
    with EXPORTS.temporarily():
        EXPORTS.add(row)
        assert EXPORTS.require("names") is row
    with pytest.raises(ConfigError, match="there is no export 'names'"):
        EXPORTS.require("names")
