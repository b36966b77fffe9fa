"""Marks are read as people write them, and never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdclr.errors import DataError
from sdclr.jobs.mine.marks import (
    RowsByName,
    by_feedback,
    mark_column,
    read_marks,
    require_both_kinds,
)

ODD = b"caf\xe9.png".decode("utf-8", "surrogateescape")
NAMES = ["a.png", "b c.png", "=1.png", "line\nbreak.png", ODD, "d.png"]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_marks_are_found_by_the_names_that_tables_have(tmp_path: Path) -> None:
    file = write(
        tmp_path / "m.csv",
        "score,path,wanted\n1,a.png,yes\n2,b c.png,No\n3,'=1.png,1\n4,line\\nbreak.png,0.0\n"
        "5,caf\\xe9.png,TRUE\n6,d.png,Removed \n",
    )
    rows = RowsByName(NAMES)
    found = {rows.get(name): mark for name, mark in read_marks(file).items()}
    assert found == {0: True, 1: False, 2: True, 3: False, 4: True, 5: None}


def test_names_are_found_in_other_forms_where_these_are_of_one_image() -> None:
    one, two = "caf\xe9.png", "cafe\u0301.png"
    rows = RowsByName(["a/b.png", one, "x.png", "both/" + one, "both/" + two])
    assert rows.find("./a//b.png") == rows.find("a/b.png") == rows.get("a/b.png") == 0
    assert rows.find(two) == rows.find(one) == 1
    assert rows.get(two) is rows.get("./a//b.png") is None, "not as we have written it"
    assert [rows.find(f"both/{name}") for name in (one, two)] == [3, 4], "exact names come first"
    assert rows.find("./both/" + one) is None, "either may be meant"
    assert rows.find("../x.png") is rows.find("b.png") is None


def test_a_table_of_fiftyone_and_json_lines_are_tables_too(tmp_path: Path) -> None:
    file = write(
        tmp_path / "m.jsonl", '{"path": "a.png", "wanted": 1}\n{"path": "d.png", "wanted": false}\n'
    )
    assert read_marks(file) == {"a.png": True, "d.png": False}


def test_the_column_of_exactly_this_name_is_read_before_one_in_capitals(tmp_path: Path) -> None:
    file = write(tmp_path / "m.csv", "Path,Wanted,path,wanted\nx,0,a.png,1\n")
    assert read_marks(file) == {"a.png": True}
    assert read_marks(write(tmp_path / "n.csv", "Path,WANTED\nx,0\n")) == {"x": False}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,wanted\na.png,maybe\n", "line 2: wanted must be yes, no, 1, 0 or empty, got maybe"),
        ("path,score\na.png,1\n", "needs the columns path and wanted"),
    ],
)
def test_what_is_no_mark_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_marks(write(tmp_path / "m.csv", text))


@pytest.mark.parametrize(
    "text", ["a.png\nb.png\n", "a.png\nb, c.png\n", "a, b.png\nc, d.png\n", ""]
)
def test_a_plain_list_is_said_to_have_no_marks(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="is a plain list of paths, which has no marks"):
        read_marks(write(tmp_path / "paths.txt", text))


def test_a_table_may_be_called_txt(tmp_path: Path) -> None:
    file = write(tmp_path / "m.txt", "path\twanted\na.png\t1\n")
    assert read_marks(file) == {"a.png": True}


def test_an_image_that_is_marked_in_two_ways_is_named(tmp_path: Path) -> None:
    file = tmp_path / "marks.csv"
    file.write_text("path,wanted\na.png,1\nb.png,0\na.png,1\n")
    assert read_marks(file) == {"a.png": True, "b.png": False}
    file.write_text("path,wanted\na.png,1\nb.png,0\na.png,0\n")
    with pytest.raises(DataError, match=r"line 4: a\.png is marked as wanted and as not wanted"):
        read_marks(file)


def test_an_empty_cell_says_nothing_and_removed_takes_a_mark_away(tmp_path: Path) -> None:
    lines = "z.png,\na.png,1\na.png,\nb.png,\nb.png,REMOVED\nb.png,removed\nc.png,.0\n"
    file = write(tmp_path / "m.csv", f"path,wanted\n{lines}")
    assert read_marks(file) == {"a.png": True, "b.png": None}
    file = write(tmp_path / "m.csv", "path,wanted\na.png,removed\na.png,0\n")
    with pytest.raises(DataError, match=r"a\.png is marked as removed and as not wanted"):
        read_marks(file)


@pytest.mark.parametrize(
    ("marks", "words"),
    [({}, "marks no image"), ({0: True}, "all of them as wanted"), ({0: False}, "as not wanted")],
)
def test_one_kind_of_marks_ranks_nothing(marks: dict[int, bool], words: str) -> None:
    with pytest.raises(DataError, match=words):
        require_both_kinds(marks, Path("m.csv"))


def test_the_column_has_what_was_read() -> None:
    assert mark_column(4, {2: True, 0: False}) == ["0", "", "1", ""]


def test_marks_of_every_image_leave_none_to_look_for() -> None:
    features = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    marks = {row: row < 4 for row in range(8)}
    _, sentence = by_feedback(marks)(features, torch.ones(8, dtype=torch.bool))
    expected = "No unmarked image is left to look for (4 marked as wanted, 4 as not wanted)."
    assert sentence == expected
    _, sentence = by_feedback(dict(list(marks.items())[:7]))(
        features, torch.ones(8, dtype=torch.bool)
    )
    assert "of the next 1 unmarked images" in sentence
