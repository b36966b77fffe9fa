"""Entries of lists find the files they mean, whatever form their letters are written in."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from sdclr.data.sources.listed_names import match_names
from sdclr.data.sources.own_images import read_own_images
from sdclr.errors import DataError


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_names_in_another_form_are_matched_with_a_remark(
    tmp_path: Path, forms: tuple[str, str], suffix: str
) -> None:
    names = ["café/größe.jpg", "café/b.jpg", "plain.jpg", "한글/ü.png"]
    listed, there = ([unicodedata.normalize(form, name) for name in names] for form in forms)
    touch(tmp_path, *there)
    file = tmp_path / f"list{suffix}"
    file.write_text("\n".join([*(["path"] if suffix == ".csv" else []), *listed]), encoding="utf-8")
    found = read_own_images(file)
    assert found.train.paths == tuple(there)
    assert found.remarks == (
        "names of a list whose letters the file system writes in another form (NFC, NFD), matched: 3",
    )


def test_a_name_that_is_there_as_it_is_written_is_never_changed(tmp_path: Path) -> None:
    names = ["é.jpg", nfd("é.jpg"), " a.jpg", "a.jpg"]
    touch(tmp_path, *names)
    assert match_names(tmp_path, names) == (names, 0, 0, 0, 0)


def test_padded_names_are_found_without_their_spaces(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", " b.jpg")
    (tmp_path / "list.csv").write_text("path , label\n x/a.jpg , cat\n b.jpg,dog\n")
    found = read_own_images(tmp_path / "list.csv")
    assert found.train.paths == ("x/a.jpg", " b.jpg")
    assert found.class_names == ["cat", "dog"]
    assert found.remarks == (
        "names of a list whose outer spaces were dropped, as no file has them: 1",
    )


def test_two_entries_for_one_file_are_refused_by_line(tmp_path: Path) -> None:
    touch(tmp_path, "é.jpg")
    (tmp_path / "list.txt").write_text(f"é.jpg\n{nfd('é.jpg')}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"list\.txt, line 2: .* is listed already, in line 1"):
        read_own_images(tmp_path / "list.txt")


def test_what_is_not_there_or_not_one_file_stays_as_it_is_written(tmp_path: Path) -> None:
    other = unicodedata.normalize("NFD", "ệ.jpg")
    half = unicodedata.normalize("NFC", "ẹ") + "\u0302.jpg"
    touch(tmp_path, other, half)
    names = ["absent/é.jpg", "a.jpg ", "ệ.jpg", "caf\udce9.jpg"]
    assert len({os.fsencode(name) for name in (other, half, names[2])}) == 3
    assert match_names(tmp_path, names) == (names, 0, 0, 0, 0)


def test_names_are_found_as_windows_and_as_our_own_tables_write_them(tmp_path: Path) -> None:
    odd = os.fsdecode(b"bad\xff\xe9.jpg")
    touch(tmp_path, "a b/0.jpg", "a b/1.jpg", f"Gr\u00f6\u00dfe/{odd}", "two\nlines.jpg")
    rows = ["a b\\0.jpg", "Gr\u00f6\u00dfe/bad\\xff\\xe9.jpg", "two\\nlines.jpg", "a b/1.jpg"]
    (tmp_path / "t.csv").write_text("path\n" + "\n".join(rows), encoding="utf-8")
    found = read_own_images(tmp_path / "t.csv")
    assert found.train.paths == (
        "a b/0.jpg",
        f"Gr\u00f6\u00dfe/{odd}",
        "two\nlines.jpg",
        "a b/1.jpg",
    )
    assert found.remarks == (
        "names of a list with escapes for bytes that are not text, matched: 2",
        "names of a list with \\ between folders, read as /: 1",
    )


def test_a_file_with_a_backslash_in_its_name_is_itself(tmp_path: Path) -> None:
    touch(tmp_path, "a\\b.jpg", "a/b.jpg")
    assert match_names(tmp_path, ["a\\b.jpg"]) == (["a\\b.jpg"], 0, 0, 0, 0)


def test_backslashes_that_lead_nowhere_or_out_are_refused_by_line(tmp_path: Path) -> None:
    touch(tmp_path, "a/0.jpg")
    for name, words in (
        ("a\\1.jpg", "a backslash; / goes"),
        ("..\\a.jpg", "leaves the image folder"),
    ):
        (tmp_path / "t.csv").write_text(f"path\na/0.jpg\n{name}\n")
        with pytest.raises(DataError, match=f"t.csv, line 3: .*{words}"):
            read_own_images(tmp_path / "t.csv")


def test_a_table_of_another_encoding_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "\u00f6.jpg")
    (tmp_path / "t.csv").write_bytes("path\na.jpg\n\u00f6.jpg\n".encode("cp1252"))
    with pytest.warns(
        UserWarning, match=r"t\.csv is not UTF-8: no file is called .* line 3; 1 such"
    ):
        assert len(read_own_images(tmp_path / "t.csv").train) == 2


def test_names_with_backslashes_are_normalised_so_that_no_image_is_taken_twice(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "x/0.png", "x/1.png")
    (tmp_path / "t.csv").write_text("path\n.\\x\\0.png\nx\\0.png\n")
    with pytest.raises(DataError, match=r"line 3: .* is listed already, in line 2"):
        read_own_images(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("path\nx\\0.png\nx\\gone.png\n")
    assert read_own_images(tmp_path / "t.csv").train.paths == ("x/0.png", "x/gone.png"), (
        "whoever decodes them counts those that are not there"
    )


def test_a_table_of_escaped_names_alone_is_found(tmp_path: Path) -> None:
    odd = os.fsdecode(b"r\xe9s")
    touch(tmp_path, f"{odd}/0.png", f"{odd}/1.png")
    (tmp_path / "t.csv").write_text("path\nr\\xe9s/0.png\nr\\xe9s/1.png\n")
    assert read_own_images(tmp_path / "t.csv").train.paths == (f"{odd}/0.png", f"{odd}/1.png")
