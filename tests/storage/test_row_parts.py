"""Rows that are kept part by part: what is finished stays, what is not ours stays as well."""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sdclr.errors import ConfigError, RunFolderError
from sdclr.storage import carried_rows, row_parts
from sdclr.storage.array_files import save_array
from sdclr.storage.carried_rows import keys_of
from sdclr.storage.row_parts import RowParts

ROW = np.dtype([("features", np.float32, (3,)), ("hash", np.uint8, (8,))])


def array_bytes(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(shape))
    return file.getvalue()


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


def test_a_folder_may_have_bytes_that_are_no_text(tmp_path: Path) -> None:
    parts = RowParts(tmp_path / "parts \udcff", "one")
    assert parts.open(4) == 0
    parts.append(rows(0, 4))
    assert RowParts(tmp_path / "parts \udcff", "one").open(4) == 4


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
    with pytest.warns(UserWarning, match="made again"):
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
    asked: list[list[int]] = []

    def rows_of(places: np.ndarray) -> np.ndarray:
        asked.append(places.tolist())
        return rows(int(places[0]), int(places[-1]) + 1)

    out = tmp_path / "out.npy"
    begun = RowParts(RowParts.beside(out), "one")
    begun.open(7)
    begun.append(rows(0, 3))
    again = RowParts(RowParts.beside(out), "one")
    again.open(7)
    again.complete(7, rows_of)
    assert asked == [[3, 4, 5], [6]], "what was finished is not computed again"
    again.keep_as(out, lambda file: np.save(file, np.concatenate(list(again.parts()))))
    assert np.load(out)["features"][:, 0].tolist() == list(range(7))
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"]
    again.open(7)
    again.complete(7, rows_of)
    with pytest.raises(ConfigError, match="exists"):
        again.keep_as(out, lambda file: None)


def computed(
    folder: Path, names: str, num_parts: int | None = None, identity: str = "net"
) -> tuple[str, str]:
    """Rows of the letters of ``names``; the names that were computed, and those that the rows say they are of.

    ``num_parts``: how many are finished before the call is killed.
    """
    parts = RowParts(folder, identity, keys=keys_of(names))
    asked: list[str] = []

    def rows_of(places: np.ndarray) -> np.ndarray:
        if len(asked) == num_parts:
            raise KeyboardInterrupt
        asked.append("".join(names[place] for place in places))
        made = np.zeros(len(places), dtype=ROW)
        made["features"][:, 0] = [ord(names[place]) for place in places]
        return made

    parts.open(len(names))
    with contextlib.suppress(KeyboardInterrupt):
        parts.complete(len(names), rows_of)
    found = [chr(int(row)) for part in parts.parts() for row in part["features"][:, 0]]
    return "".join(asked), "".join(found)


@pytest.fixture
def three_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_parts, "ROWS_PER_PART", 3)


@pytest.mark.usefixtures("three_a_part")
def test_rows_with_keys_are_gone_on_with_when_others_have_come_and_gone(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    assert computed(folder, "abcdefgh", 2) == ("abcdef", "abcdef")
    assert computed(folder, "abcdefgh", 0) == ("", "abcdef"), "the same images: as without keys"
    assert computed(folder, "Xadcgfh", 1) == ("X", "Xad"), "in another order, some gone"
    assert computed(folder, "fYZXcda") == ("YZ", "fYZXcda"), "what was carried over twice as well"
    RowParts(folder, "net", keys=keys_of("fYZXcda")).remove()
    assert not folder.exists()


@pytest.mark.usefixtures("three_a_part")
def test_rows_of_another_network_are_not_carried_over(tmp_path: Path) -> None:
    computed(tmp_path / "parts", "abcdef", 1)
    with pytest.warns(UserWarning, match="made again"):
        assert computed(tmp_path / "parts", "xabcdef", identity="other")[0] == "xabcdef"
    computed(tmp_path / "parts2", "abcdef", 1)
    with pytest.warns(UserWarning, match="made again"):
        assert computed(tmp_path / "parts2", "abcdef", identity="other")[0] == "abcdef"


STEPS = ["rename", "keys", "identity", "unlink"]
"""Before the rows have their name, before the keys and the identity are written, after the first old file has gone."""


@contextlib.contextmanager
def killed_at(step: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def killed_after(path: Path) -> None:
        path.rename(path.with_suffix(".gone"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "rename":
            patch.setattr(carried_rows.os, "replace", killed)
        elif step == "keys":
            patch.setattr(carried_rows, "write_arrays", killed)
        elif step == "identity":
            patch.setattr(row_parts, "write_atomically", killed)
        else:
            patch.setattr(Path, "unlink", killed_after)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.mark.usefixtures("three_a_part")
@pytest.mark.parametrize("step", STEPS)
def test_a_call_killed_while_it_carries_rows_over_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Neither for the images that it was given nor, before them, for the former ones."""
    new, former = tmp_path / "new", tmp_path / "former"
    for folder in (new, former):
        computed(folder, "abcdefghi", 2)
        with killed_at(step, monkeypatch):
            computed(folder, "Xabcdefghi")
    assert computed(new, "Xabcdefghi") == ("Xghi", "Xabcdefghi")
    assert computed(former, "abcdefghi", 1) == ("ghi", "abcdefghi")
    assert computed(former, "Xabcdefghi") == ("X", "Xabcdefghi")


@pytest.mark.usefixtures("three_a_part")
@pytest.mark.parametrize("step", ["keys", "identity"])
def test_a_first_call_killed_before_it_says_whose_the_folder_is_can_be_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with killed_at(step, monkeypatch):
        computed(tmp_path / "parts", "abc")
    RowParts.require_ours(tmp_path / "parts", "embed")
    assert computed(tmp_path / "parts", "abc") == ("abc", "abc")


def test_a_folder_that_is_removed_twice_is_gone(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    RowParts(tmp_path / "parts", "one").remove()
    assert not (tmp_path / "parts").exists()


@pytest.mark.usefixtures("three_a_part")
def test_damaged_rows_that_were_carried_over_are_computed_anew(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    computed(folder, "abcdefgh", 2)
    computed(folder, "Xabcdefgh", 1)
    next(folder.glob("carried-*")).write_bytes(b"damaged")
    assert computed(folder, "XYabcdefgh") == ("Yfgh", "XYabcdefgh")


@pytest.mark.usefixtures("three_a_part")
def test_keys_that_cannot_be_read_cost_the_rows_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    computed(folder, "abcdefgh", 2)
    next(folder.glob("keys-*")).write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="made again"):
        assert computed(folder, "Xabcdefgh") == ("Xabcdefgh", "Xabcdefgh")


@pytest.mark.usefixtures("three_a_part")
@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"hello", b"PK\x03\x04", array_bytes(()), array_bytes((0, 3))]
)
def test_a_part_that_cannot_be_read_is_computed_anew(tmp_path: Path, content: bytes) -> None:
    computed(tmp_path / "parts", "abcdefgh", 2)
    next((tmp_path / "parts").glob("000000000003-*.npy")).write_bytes(content)
    with pytest.warns(UserWarning, match=r"000000000003-\w+\.npy cannot be read: .* made again"):
        assert computed(tmp_path / "parts", "abcdefgh") == ("defgh", "abcdefgh")


def test_what_the_disk_refuses_has_its_cause(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError) as refused:
        save_array(full, np.zeros((4096, 8)))
    assert refused.value.errno == errno.ENOSPC
    with (tmp_path / "x.npy").open("wb") as file:
        save_array(file, rows(0, 4))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), rows(0, 4))
