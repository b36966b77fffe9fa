"""Tables as companies have them: whatever program wrote one, the same rows come out of it."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

from sdclr.data.sources.image_lists import read_listed_images
from sdclr.data.sources.tables import read_table
from sdclr.errors import ConfigError, DataError, MissingInputError, SdclrError

ROWS = [
    {"path": "ü/1.jpg", "label": "a cat", "camera": "k1", "id": "7"},
    {"path": "b, c.jpg", "label": "dog", "camera": "", "id": "8"},
]


def write(file: Path) -> Path:
    """The rows as the suffix (and what stands before it) says."""
    pieces = file.name.split(".")
    if pieces[-1] in ("jsonl", "ndjson"):
        file.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    elif pieces[-1] == "json":
        file.write_text(json.dumps(ROWS))
    elif pieces[-1] in ("parquet", "pq"):
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        columns = {name: [row[name] or None for row in ROWS] for name in ROWS[0]}
        columns["id"] = [7, 8]  # type: ignore[list-item]
        parquet.write_table(pyarrow.table(columns), file)
    else:
        delimiter = {"tsv": "\t", "tab": "\t"}.get(
            pieces[-1], {"semicolons": ";"}.get(pieces[0], ",")
        )
        quoted = [[f'"{cell}"' if "," in cell else cell for cell in row.values()] for row in ROWS]
        lines = [delimiter.join(cells) for cells in [list(ROWS[0]), *quoted]]
        begin = "sep=;\r\n" if "excel" in pieces else ""
        file.write_text(
            begin + "\r\n".join(lines) + "\r\n", encoding="utf-16" if "16" in pieces else "utf-8"
        )
    return file


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a.csv",
            "semicolons.csv",
            "semicolons.excel.csv",
            "a.16.csv",
            "semicolons.16.csv",
            "a.16.tsv",
        ),
        *("a.tsv", "a.tab", "a.jsonl", "a.ndjson", "a.json", "a.parquet", "a.PQ"),
    ],
)
def test_every_format_gives_the_same_images_labels_and_other_columns(
    tmp_path: Path, name: str
) -> None:
    file = (
        write(tmp_path / "a.pq").rename(tmp_path / name)
        if name == "a.PQ"
        else write(tmp_path / name)
    )
    found = read_listed_images(file)
    assert found.paths == ["ü/1.jpg", "b, c.jpg"]
    assert found.labels == ["a cat", "dog"]
    assert found.columns == {"camera": ["k1", ""], "id": ["7", "8"]}


def test_columns_of_other_names_are_taken_when_they_are_said(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("Bild;Art;label\na.jpg;cat;x\nb.jpg;dog;y\n")
    found = read_listed_images(file, path_column="Bild", label_column="art")
    assert (found.paths, found.labels) == (["a.jpg", "b.jpg"], ["cat", "dog"])
    assert found.columns == {"label": ["x", "y"]}


def test_an_unknown_column_is_answered_with_those_that_there_are(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("path,art\na.jpg,cat\n")
    with pytest.raises(
        ConfigError, match=r"data\.label_column=species: .*no such column\. It has path, art\."
    ):
        read_listed_images(file, label_column="species")
    with pytest.raises(ConfigError, match=r"data\.path_column=bild: .*It has path, art\."):
        read_listed_images(file, path_column="bild")
    with pytest.raises(ConfigError, match=r"path cannot be the column of paths and that of labels"):
        read_listed_images(file, label_column="path")


def test_columns_are_for_tables_and_not_for_lists_of_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a.jpg\n")
    with pytest.raises(ConfigError, match=r"data\.path_column=x is for tables"):
        read_listed_images(tmp_path / "a.txt", path_column="x")


def test_a_table_without_a_column_of_paths_names_its_columns_and_the_setting(
    tmp_path: Path,
) -> None:
    (tmp_path / "t.jsonl").write_text('{"bild": "a.jpg"}\n')
    with pytest.raises(DataError, match=r"it has the columns bild\. If .* data\.path_column=NAME"):
        read_listed_images(tmp_path / "t.jsonl")


def test_rows_without_a_label_are_an_error_or_left_out_or_make_all_unlabelled(
    tmp_path: Path,
) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(
        '{"path": "a.jpg", "label": 3}\n\n{"path": "b.jpg"}\n{"path": "c.jpg", "label": null}\n'
    )
    with pytest.raises(DataError, match=r"t\.jsonl, line 3: no label\. Give every image one"):
        read_listed_images(file)
    found = read_listed_images(file, unlabelled="leave_out")
    assert (found.paths, found.labels, found.num_unlabelled) == (["a.jpg"], ["3"], 2)
    found = read_listed_images(file, unlabelled="keep_all")
    assert found.paths == ["a.jpg", "b.jpg", "c.jpg"]
    assert (found.labels, found.num_unlabelled, found.label_column) == (["3", "", ""], 2, "label")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"path": "a.jpg"}\n{"path": \n', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"path": "a.jpg"}\n[1]\n', r"a\.jsonl, line 2: an object was expected"),
        ("a.jsonl", '{"path": "a.jpg", "path": "b.jpg"}\n', "'path' is given twice"),
        ("a.jsonl", '{"path": "\\ud800.jpg"}\n', "line 1: .* not text that can name a file"),
        ("a.jsonl", '{"path": "/etc/a.jpg"}\n', "line 1: '/etc/a.jpg' leaves the image folder"),
        ("a.jsonl", '{"path": null}\n', "line 1: no path"),
        (
            "a.json",
            '[{"path": "a.jpg"}, {"path": "a.jpg"}]',
            "row 2: 'a.jpg' is listed already, in row 1",
        ),
        ("a.json", '{"paths": ["a.jpg"]}', "is not a table: a .json table is an array of objects"),
        ("a.json", "[" * 100_000, "cannot be read as JSON"),
        (
            "a.json",
            '{"path": "a.jpg"}\n{"path": "b.jpg"}\n',
            r"It looks like JSON lines: name it \.jsonl",
        ),
        ("a.json", '{"images": [], "annotations": []}', "looks like COCO's annotations"),
        ("a.tsv", "path\tlabel\na.jpg\n", "line 2: 1 fields for 2 columns"),
        ("a.parquet", "PAR1 of some sort", "cannot be read as Parquet"),
    ],
)
def test_a_damaged_table_is_named_with_its_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_listed_images(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet"])
def test_an_absent_table_is_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingInputError, match="does not exist"):
        read_listed_images(tmp_path / name)


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        ConfigError, match=r'needs pyarrow: pip install "sdclr\[parquet\]", or save .* CSV'
    ):
        read_listed_images(tmp_path / "a.parquet")


def test_columns_of_bytes_are_no_paths_and_are_remarked_on(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"image": [{"bytes": b"x", "path": "a.jpg"}], "n": [1]})
    parquet.write_table(table, tmp_path / "hub.parquet")
    with pytest.raises(
        DataError, match=r"it has the columns n \(image holds bytes or lists and no paths\)"
    ):
        read_listed_images(tmp_path / "hub.parquet")
    parquet.write_table(table.append_column("file_name", [["a.jpg"]]), tmp_path / "both.parquet")
    found = read_listed_images(tmp_path / "both.parquet")
    assert (found.paths, dict(found.columns)) == (["a.jpg"], {"n": ["1"]})
    assert "hold no text or numbers left out: image" in found.remarks[0]


def test_a_table_without_names_or_with_equal_ones_keeps_every_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",path,note,note\n0,a.jpg,x,y\n")
    assert list(read_table(tmp_path / "a.csv").columns) == ["column 1", "path", "note", "note (2)"]


def test_commas_inside_a_known_header_stay_commas(tmp_path: Path) -> None:
    """A table that was read before is read as before."""
    (tmp_path / "a.csv").write_text("path,a;b;c;d\nx.jpg,1\n")
    assert read_listed_images(tmp_path / "a.csv").columns == {"a;b;c;d": ["1"]}


@pytest.mark.filterwarnings("ignore:.* is not UTF-8")
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet"])
def test_damage_anywhere_is_read_or_refused_and_never_escapes(tmp_path: Path, name: str) -> None:
    sound, rng = write(tmp_path / name).read_bytes(), random.Random(0)
    outcomes = set()
    for _ in range(150):
        content = bytearray(sound)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(content))
            if rng.random() < 0.6:
                content[place] = rng.randrange(256)
            else:
                content[place : place + rng.randint(0, 9)] = rng.randbytes(rng.randint(0, 9))
        (tmp_path / name).write_bytes(content)
        for boxes in ("none", "auto"):
            try:
                outcomes.add(type(read_listed_images(tmp_path / name, boxes=boxes)).__name__)
            except SdclrError as error:
                outcomes.add(type(error).__name__)

    assert "DataError" in outcomes


def test_numbers_of_json_are_as_the_file_writes_them(tmp_path: Path) -> None:
    rows = '{"path": "a.jpg", "label": 1.10}', '{"path": "b.jpg", "label": 1.1}'
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    (tmp_path / "t.json").write_text(f"[{', '.join(rows)}]")
    for name in ("t.jsonl", "t.json"):
        assert read_table(tmp_path / name).columns["label"] == ["1.10", "1.1"]


def test_a_number_that_is_none_is_an_empty_cell_of_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"path": ["a", "b"], "label": [2.0, float("nan")]})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").columns["label"][1] == ""


def test_blank_lines_before_the_header_are_none_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\n\n\npath,label\na.jpg,x\n")
    found = read_table(tmp_path / "t.csv", ("path",))
    assert (found.columns["label"], found.lines) == (["x"], [5])


def test_two_columns_of_a_name_that_counts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label,label,x,x\na.jpg,1,2,3,4\n")
    with pytest.raises(DataError, match="has 2 columns called label"):
        read_table(tmp_path / "t.csv", ("path", "label"))
    assert "x (2)" in read_table(tmp_path / "t.csv", ("path",)).columns


def test_a_label_that_is_no_utf_8_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("path,label\na.jpg,é\n".encode("latin-1"))
    with pytest.warns(UserWarning, match="is not UTF-8: the label .* Save it as UTF-8"):
        read_listed_images(tmp_path / "t.csv")
