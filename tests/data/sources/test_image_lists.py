"""Lists and tables of one's own images: what they may say, and every way in which they can be wrong."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from sdclr.data.sources.image_lists import ListedImages, read_listed_images, read_txt_list
from sdclr.errors import DataError, MissingInputError


def txt(folder: Path, content: str | bytes) -> Path:
    path = folder / "list.txt"
    path.write_bytes(
        content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
    )
    return path


def table(folder: Path, *rows: list[str]) -> Path:
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(rows)
    return path


# ---- .txt


def test_lines_with_labels_are_a_labelled_list(tmp_path: Path) -> None:
    listed = read_txt_list(txt(tmp_path, "b/x 1.jpg 7\r\n\r\na.jpg 10\n"))
    assert listed == ListedImages(
        ["b/x 1.jpg", "a.jpg"], ["7", "10"], tmp_path / "list.txt", [1, 3]
    )
    assert listed.where(1) == f"{tmp_path / 'list.txt'}, line 3"


def test_plain_lines_are_an_unlabelled_list(tmp_path: Path) -> None:
    listed = read_txt_list(txt(tmp_path, "\ufeffb/two words.jpg\n./a//c.jpg\nno_suffix\n\n"))
    assert listed[:2] == (["b/two words.jpg", "a/c.jpg", "no_suffix"], None)


def test_names_that_are_no_text_survive_in_lists(tmp_path: Path) -> None:
    assert read_txt_list(txt(tmp_path, b"caf\xe9.jpg\n")).paths == ["caf\udce9.jpg"]
    assert read_txt_list(txt(tmp_path, b'it\'s "one".jpg 3\n')).paths == ['it\'s "one".jpg']


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a.jpg 1\nb.jpg\n", "line 2: 'b.jpg' has no label, and other lines have one"),
        ("a.jpg\nb.jpg 1\n", "line 1: 'a.jpg' has no label, and other lines have one"),
        (
            "a.jpg cat\n",
            r"line 1: 'a.jpg cat' does not end in a whole number.*write a \.csv with the columns path,label",
        ),
        ("a.jpg\t1\n", "line 1: 'a.jpg\\\\t1' does not end in a whole number"),
        ("a\tb.jpg\n", "line 1: a tab"),
        ("a.jpg -1\n", "does not end in a whole number"),
        (
            "x.jpg\n/data/a.jpg\n",
            "line 2: '/data/a.jpg' leaves the image folder.*relative to the list's folder, or to",
        ),
        ("../a.jpg 1\n", "leaves the image folder"),
        ("..\\a.jpg 1\n", "leaves the image folder"),
        ("a.jpg\n./a.jpg\n", r"line 2: './a.jpg' is listed already, in line 1"),
        ("\n  \n", "names no image"),
    ],
)
def test_a_bad_line_of_a_list_is_named(tmp_path: Path, lines: str, message: str) -> None:
    path = txt(tmp_path, lines)
    with pytest.raises(DataError, match=message) as caught:
        read_txt_list(path)
    assert str(path) in str(caught.value)


# ---- .csv


@pytest.mark.parametrize("header", ["path", "File", "FILENAME", " image "])
@pytest.mark.parametrize("label", ["label", "Class", "TARGET"])
def test_columns_are_found_by_name(tmp_path: Path, header: str, label: str) -> None:
    path = table(
        tmp_path, ["id", label, header], ["1", "a cat", "x/1.jpg"], ["2", "dog", "x/2.jpg"]
    )
    found = read_listed_images(path)
    assert found[:4] == (["x/1.jpg", "x/2.jpg"], ["a cat", "dog"], path, [2, 3])
    assert found.columns == {"id": ["1", "2"]}


def test_a_table_without_labels_is_unlabelled(tmp_path: Path) -> None:
    assert read_listed_images(table(tmp_path, ["path", "width"], ["a.jpg", "3"]))[:2] == (
        ["a.jpg"],
        None,
    )


def test_of_several_columns_the_first_known_name_counts(tmp_path: Path) -> None:
    path = table(tmp_path, ["image", "class", "path", "label"], ["no.jpg", "no", "a.jpg", "yes"])
    assert read_listed_images(path)[:2] == (["a.jpg"], ["yes"])


def test_a_table_carries_any_name(tmp_path: Path) -> None:
    names = [
        "a\nb.jpg",
        'it\'s "one".jpg',
        "caf\udce9.jpg",
        "a, b.jpg",
        " spaces .jpg",
        "图.jpg",
        "a\r\nb.jpg",
    ]
    path = table(tmp_path, ["path"], *([name] for name in names))
    assert read_listed_images(path).paths == names


def test_a_byte_order_mark_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbfpath,label\r\na.jpg,1\r\n\r\n,\r\nb.jpg,2\r\n")
    assert read_listed_images(path) == ListedImages(
        ["a.jpg", "b.jpg"], ["1", "2"], path, [2, 5], label_column="label"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "a.jpg,cat\nb.jpg,dog\n",
            r"needs a column path, file, filename or image; .* columns a\.jpg, cat\. .*commas",
        ),
        (
            "pfad;art\na.jpg;cat\n",
            "names the columns pfad, art. Columns are separated by semicolons",
        ),
        ("", r"table\.csv is empty\. A table has a column path"),
        ("path,label\n", "names no image"),
        (
            "path,label\na.jpg,cat\nb, c.jpg,dog\n",
            "line 3: 3 fields for 2 columns. Put quotes around",
        ),
        ("path,label\na.jpg\n", "line 2: 1 fields for 2 columns"),
        ("path,label\na.jpg,\n", "line 2: no label. Give every image one"),
        ("path,label\n,cat\n", "line 2: no path"),
        ("path\n/data/a.jpg\n", "line 2: '/data/a.jpg' leaves the image folder"),
        ("path\na.jpg\na.jpg\n", "line 3: 'a.jpg' is listed already, in line 2"),
        ('path,label\n"a.jpg,cat\n', "line 2: not a table of comma-separated values"),
        ("path\n" + "x" * 200_000 + "\n", "not a table of comma-separated values: field larger"),
    ],
)
def test_a_bad_table_is_refused_by_line_or_columns(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_listed_images(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("read", [read_txt_list, read_listed_images])
def test_an_absent_list_is_missing_and_a_folder_is_no_list(tmp_path: Path, read: object) -> None:
    with pytest.raises(MissingInputError, match="absent does not exist"):
        read(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read(tmp_path)


# ---- what other programs write


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_lists_and_tables_are_read_in_the_encoding_of_their_mark(
    tmp_path: Path, encoding: str
) -> None:
    mark = "" if encoding in ("utf-16", "utf-32", "utf-8-sig") else "\ufeff"
    for name, text in (
        ("a.csv", "path,label\r\nü/1.jpg,größe\r\n图.jpg,b\r\n"),
        ("a.txt", "ü/1.jpg\r\n图.jpg\r\n"),
    ):
        (tmp_path / name).write_bytes((mark + text).encode(encoding))
    assert read_listed_images(tmp_path / "a.csv")[:2] == (["ü/1.jpg", "图.jpg"], ["größe", "b"])
    assert read_txt_list(tmp_path / "a.txt").paths == ["ü/1.jpg", "图.jpg"]


def test_a_list_that_is_cut_inside_a_character_is_refused_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("path\na.jpg\n".encode("utf-16")[:-1])
    with pytest.raises(
        DataError,
        match=r"a\.csv begins as UTF-16 text, but is not valid at byte 22: .* Save it again, as UTF-8",
    ):
        read_listed_images(tmp_path / "a.csv")


def test_utf_16_without_a_mark_is_named(tmp_path: Path) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        (tmp_path / "a.txt").write_bytes("a.jpg\n".encode(encoding))
        with pytest.raises(
            DataError, match=r"a\.txt, line 1: a zero byte .* UTF-16 .* Save it again"
        ):
            read_txt_list(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "text",
    [
        'path , label\n"a, 1.jpg" , "a cat"\n"b.jpg" ,dog\n',
        'path,label\r\n  "a, 1.jpg",\t"a cat"  \r\n"b.jpg",  dog \r\n , \r\n',
    ],
)
def test_spaces_around_fields_of_a_table_do_not_count(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert read_listed_images(tmp_path / "a.csv")[:2] == (["a, 1.jpg", "b.jpg"], ["a cat", "dog"])


def test_quotes_that_are_padded_inside_a_field_stay(tmp_path: Path) -> None:
    names = ['a, "b" ,c.jpg', 'x" y.jpg', '"q" .jpg']
    path = table(tmp_path, ["path", "label"], *([name, ' "u" , v '] for name in names))
    assert read_listed_images(path)[:2] == (names, ['"u" , v'] * 3)


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_absolute_paths_below_the_root_are_relative_ones(tmp_path: Path, name: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    read = read_txt_list if name.endswith(".txt") else read_listed_images
    begin = "" if name.endswith(".txt") else "path\n"
    lines = [
        f"{tmp_path}/real/a.jpg",
        f"{tmp_path}/link//x/./b.jpg",
        f"/{tmp_path}/real/c.jpg",
        "d.jpg",
    ]
    for folder in ("real", "link"):
        file = tmp_path / folder / name
        file.write_text(begin + "\n".join(lines if folder == "link" else [lines[0], *lines[2:]]))
        found = (
            ["a.jpg", "x/b.jpg", "c.jpg", "d.jpg"]
            if folder == "link"
            else ["a.jpg", "c.jpg", "d.jpg"]
        )
        assert read(file).paths == found
        assert read(Path(shutil.move(file, tmp_path / name)), tmp_path / folder).paths == found


@pytest.mark.parametrize(
    "path", ["/etc/x.jpg", "{root}2/a.jpg", "{root}/../a.jpg", "{root}/x/../../a.jpg", "~/a.jpg"]
)
def test_absolute_paths_elsewhere_are_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "a.csv").write_text("path\n" + path.format(root=tmp_path / "root"))
    with pytest.raises(
        DataError, match=r"leaves the image folder; .* absolute ones must be below it"
    ):
        read_listed_images(tmp_path / "a.csv", tmp_path / "root")


def test_an_image_listed_in_both_ways_is_listed_twice(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"a.jpg\n{tmp_path}/a.jpg\n")
    with pytest.raises(DataError, match=r"line 2: .*a\.jpg' is listed already, in line 1"):
        read_txt_list(tmp_path / "a.txt")
