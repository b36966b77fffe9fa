"""Rows that are kept part by part: what is finished stays, what is not ours stays as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdclr.errors import ConfigError, RunFolderError
from sdclr.storage import row_parts
from sdclr.storage.row_parts import RowParts

ROW = np.dtype([("features", np.float32, (3,)), ("hash", np.uint8, (8,))])


def rows(first: int, last: int) -> np.ndarray:
    made = np.zeros(last - first, dtype=ROW)
    made["features"][:, 0] = np.arange(first, last)
    return made


def test_rows_of_any_type_come_back_in_order_and_whole(tmp_path: Path) -> None:
    begun = RowParts(tmp_path / "parts", "one")
    assert begun.open(7) == 0
    begun.append(rows(0, 4))
    again = RowParts(tmp_path / "parts", "one")
    assert again.open(7) == 4, "a killed command goes on after the parts that were finished"
    again.append(rows(4, 7))
    whole = again.as_mapped_file()
    assert whole.dtype == ROW
    assert whole["features"][:, 0].tolist() == list(range(7))
    assert sum(len(part) for part in again.parts()) == 7
    again.remove()
    assert not (tmp_path / "parts").exists()


def test_half_of_a_part_counts_for_nothing(tmp_path: Path) -> None:
    parts = RowParts(tmp_path / "parts", "one")
    parts.open(8)
    parts.append(rows(0, 4))
    (tmp_path / "parts" / ".000000000004.npy.0123456789abcdef.tmp").write_bytes(b"half")
    assert RowParts(tmp_path / "parts", "one").open(8) == 4


def test_rows_of_something_else_are_made_anew_with_a_warning(tmp_path: Path) -> None:
    parts = RowParts(tmp_path / "parts", "one")
    parts.open(4)
    parts.append(rows(0, 4))
    with pytest.warns(UserWarning, match="made anew"):
        assert RowParts(tmp_path / "parts", "other").open(4) == 0


def test_what_is_not_ours_is_refused_before_and_left_after(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"was not made by sdclr mine"):
        RowParts.require_ours(folder, "mine")
    (folder / "thesis.txt").unlink()
    parts = RowParts(folder, "one")
    parts.open(1)
    (folder / "thesis.txt").write_text("years of work")
    with pytest.warns(UserWarning, match="not sdclr's"):
        parts.remove()
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_what_is_missing_is_computed_part_by_part_and_kept_under_the_name_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(row_parts, "ROWS_PER_PART", 3)
    asked: list[range] = []

    def rows_of(wanted: range) -> np.ndarray:
        asked.append(wanted)
        return rows(wanted.start, wanted.stop)

    out = tmp_path / "out.npy"
    begun = RowParts(RowParts.beside(out), "one")
    begun.open(7)
    begun.append(rows(0, 3))
    again = RowParts(RowParts.beside(out), "one")
    again.open(7)
    again.complete(7, rows_of)
    assert asked == [range(3, 6), range(6, 7)], "what was finished is not computed again"
    again.keep_as(out, lambda file: np.save(file, np.concatenate(list(again.parts()))))
    assert np.load(out)["features"][:, 0].tolist() == list(range(7))
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"]
    again.open(7)
    again.complete(7, rows_of)
    with pytest.raises(ConfigError, match="exists"):
        again.keep_as(out, lambda file: None)
