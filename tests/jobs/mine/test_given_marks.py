"""Marks are of the images that were marked, whatever folder their names lie below, and none is lost unsaid."""

from __future__ import annotations

import csv
import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from photo_folder import make_photos
from sdclr import Run
from sdclr.data import DataConfig
from sdclr.errors import DataError
from sdclr.jobs.mine import job, mine

pytestmark = pytest.mark.filterwarnings("ignore:.*trained on none of these images")

MARKED = {f"{kind}_{number:03d}.png": str(kind) for kind in (0, 1) for number in range(4)}
"""Of the images of :func:`month`, by name below its folder p."""


def data(path: Path) -> DataConfig:
    return DataConfig(name="images", path=str(path), subset="all")


@pytest.fixture
def june(tmp_path: Path) -> Path:
    make_photos(tmp_path / "june" / "p", {0: 18, 1: 17})
    return tmp_path / "june"


@pytest.fixture
def july(tmp_path: Path) -> Path:
    make_photos(tmp_path / "july" / "p", {0: 18, 3: 17}, start=50)
    return tmp_path / "july"


def table(folder: Path, column: str, cells: dict[str, str]) -> Path:
    """A list of all images of a folder."""
    names = sorted(path.name for path in (folder / "p").iterdir())
    lines = [f"p/{name},{cells.get(name, '')}" for name in names]
    (folder / "list.csv").write_text("\n".join([f"path,{column}", *lines]))
    return folder / "list.csv"


def mark(out: Path, marks: dict[str, str]) -> Path:
    """Fill in the column wanted of scores.csv."""
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["wanted"] = marks.get(row["path"], row["wanted"])
    with (out / "scores.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return out / "scores.csv"


def marks_in(out: Path) -> dict[str, str]:
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        return {row["path"]: row["wanted"] for row in csv.DictReader(file) if row["wanted"]}


def below(folder: str, marks: dict[str, str] = MARKED) -> dict[str, str]:
    return {f"{folder}/{name}": said for name, said in marks.items()}


def test_feedback_may_be_the_table_of_the_earlier_folder(
    digits_run: Run, june: Path, july: Path, tmp_path: Path
) -> None:
    mine(digits_run.folder, data(june / "p"), tmp_path / "a")
    feedback = mark(tmp_path / "a", MARKED)
    how = {"against": tmp_path / "a", "feedback": feedback}
    mine(digits_run.folder, data(july / "p"), tmp_path / "b", **how)  # type: ignore[arg-type]
    assert marks_in(tmp_path / "b") == below("june/p")


def test_feedback_in_another_table_may_name_images_below_the_folder_of_one_collection(
    digits_run: Run, june: Path, july: Path, tmp_path: Path
) -> None:
    mine(digits_run.folder, data(june / "p"), tmp_path / "a")
    how = {"against": tmp_path / "a", "feedback": tmp_path / "marks.csv"}

    def write(**marks: str) -> None:
        lines = [f"{name}.png,{said}" for name, said in marks.items()]
        (tmp_path / "marks.csv").write_text("\n".join(["path,wanted", *lines]))

    write(**{"0_050": "0", "3_050": "1"})
    mine(digits_run.folder, data(july / "p"), tmp_path / "b", **how)  # type: ignore[arg-type]
    assert marks_in(tmp_path / "b") == {"july/p/0_050.png": "0", "july/p/3_050.png": "1"}
    write(**{"0_050": "0", "1_000": "1"})
    with pytest.raises(DataError, match="marks 1 image that the collection does not have"):
        mine(digits_run.folder, data(july / "p"), tmp_path / "c", **how)  # type: ignore[arg-type]
    make_photos(july / "p", {0: 2})
    write(**{"0_000": "0", "0_001": "1"})
    with pytest.raises(DataError, match="both collections have"):
        mine(digits_run.folder, data(july / "p"), tmp_path / "d", **how)  # type: ignore[arg-type]


def test_marks_stay_when_the_same_folder_gets_a_collection_above_or_below(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rare"
    mine(digits_run.folder, data(june / "p"), out)
    mark(out, MARKED)
    mine(digits_run.folder, data(june), out, overwrite=True)
    assert marks_in(out) == below("p")
    mine(digits_run.folder, data(june / "p"), out, overwrite=True)
    assert marks_in(out) == MARKED


def test_marks_stay_when_an_earlier_collection_joins(
    digits_run: Run, june: Path, july: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rare"
    mine(digits_run.folder, data(july / "p"), tmp_path / "july-mined")
    mine(digits_run.folder, data(june / "p"), out)
    mark(out, MARKED)
    mine(digits_run.folder, data(june / "p"), out, against=tmp_path / "july-mined", overwrite=True)
    assert marks_in(out) == below("june/p")


def test_marks_stay_when_a_call_on_another_folder_was_killed_before_its_table_was_written(
    digits_run: Run, june: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "rare"
    mine(digits_run.folder, data(june / "p"), out)
    mark(out, MARKED)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for step in ("write_csv", "write_page"):
        with monkeypatch.context() as patch:
            patch.setattr(job, step, killed)
            with pytest.raises(KeyboardInterrupt):
                mine(digits_run.folder, data(june), out, overwrite=True)
    mine(digits_run.folder, data(june), out, overwrite=True)
    assert marks_in(out) == below("p")


def noise(width: int = 8) -> np.ndarray:
    """Forty images that differ."""
    return np.random.default_rng(0).integers(0, 256, (40, 8, width, 3), dtype=np.uint8)


def in_memory(folder: Path, images: np.ndarray) -> DataConfig:
    np.savez(folder / "images.npz", images=images)
    return DataConfig(name="arrays", path=str(folder / "images.npz"), subset="all")


def _digest_at(table: Path, name: str) -> str:
    with table.open(encoding="utf-8", newline="") as file:
        return next(row["digest"] for row in csv.DictReader(file) if row["path"] == name)


def test_marks_of_images_in_memory_follow_the_images_and_not_their_positions(
    digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of images in memory are positions; where another image is now, a mark is not for it."""
    images = noise()
    out = tmp_path / "rare"
    mine(digits_run.folder, in_memory(tmp_path, images), out)
    mark(out, {"0": "1", "5": "0", "39": "1"})
    downloaded = shutil.copy(out / "scores.csv", tmp_path / "chosen.csv")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    moved = np.concatenate([images[20:21] // 2, images])
    with (
        monkeypatch.context() as patch
    ):  # what is stored is of the new images, the table of the old ones
        patch.setattr(job, "write_csv", killed)
        with pytest.raises(KeyboardInterrupt):
            mine(digits_run.folder, in_memory(tmp_path, moved), out, overwrite=True)
    mine(digits_run.folder, in_memory(tmp_path, moved), out, overwrite=True)
    assert marks_in(out) == {"1": "1", "6": "0", "40": "1"}
    fresh = tmp_path / "fresh"
    mine(digits_run.folder, in_memory(tmp_path, moved), fresh, feedback=downloaded)
    assert marks_in(fresh) == {"1": "1", "6": "0", "40": "1"}
    fiftyone = tmp_path / "fiftyone.csv"
    cells = [f"5,{_digest_at(downloaded, '5')},0", f"39,{_digest_at(downloaded, '39')},1"]
    fiftyone.write_text("\n".join(["filepath,rarity_digest,rarity_wanted", *cells]))
    mine(digits_run.folder, in_memory(tmp_path, moved), tmp_path / "other", feedback=fiftyone)
    assert marks_in(tmp_path / "other") == {"6": "0", "40": "1"}
    others = 255 - images
    with pytest.warns(UserWarning, match=r"^3 marks in .*scores.csv cannot be shown"):
        mine(digits_run.folder, in_memory(tmp_path, others), out, overwrite=True)
    assert marks_in(out) == {}
    mark(out, {"1": "0"})  # another image at the position of one that is parked
    with pytest.warns(UserWarning, match=r"^1 mark in .*scores.csv cannot be shown"):
        mine(digits_run.folder, in_memory(tmp_path, images[::-1]), out, overwrite=True)
    assert marks_in(out) == {"39": "1", "34": "0", "0": "1"}
    mine(
        digits_run.folder,
        in_memory(tmp_path, np.concatenate([images, others])),
        out,
        overwrite=True,
    )
    assert marks_in(out) == {"0": "1", "5": "0", "39": "1", "41": "0"}
    assert not (out / "marks_of_missing.csv").exists()
    with pytest.raises(DataError, match="marks 3 images that the collection does not have"):
        mine(digits_run.folder, in_memory(tmp_path, others), tmp_path / "x", feedback=downloaded)


def test_equal_images_in_memory_keep_their_marks_apart(digits_run: Run, tmp_path: Path) -> None:
    images = noise()
    images[7] = images[3]
    out = tmp_path / "rare"
    mine(digits_run.folder, in_memory(tmp_path, images), out)
    mark(out, {"3": "1", "7": "0", "9": "1"})
    mine(digits_run.folder, in_memory(tmp_path, np.roll(images, 1, 0)), out, overwrite=True)
    assert marks_in(out) == {"4": "1", "8": "0", "10": "1"}
    with pytest.warns(UserWarning, match=r"^1 mark in .* cannot be shown"):
        mine(digits_run.folder, in_memory(tmp_path, np.delete(images, 7, 0)), out, overwrite=True)
    assert marks_in(out) == {"3": "1", "8": "1"}
    mine(digits_run.folder, in_memory(tmp_path, images), out, overwrite=True)
    assert marks_in(out) == {"3": "1", "7": "0", "9": "1"}


def test_a_mark_that_a_killed_call_left_parked_does_not_come_back(
    digits_run: Run, tmp_path: Path
) -> None:
    images = noise()
    out = tmp_path / "rare"
    mine(digits_run.folder, in_memory(tmp_path, images), out)
    mark(out, {"3": "1"})
    parked = f"path,wanted,root,digest\n1,1,,{_digest_at(out / 'scores.csv', '3')[7:]}\n"
    (out / "marks_of_missing.csv").write_text(parked)
    mine(digits_run.folder, in_memory(tmp_path, images), out, overwrite=True)
    assert not (out / "marks_of_missing.csv").exists()
    mark(out, {"3": ""})
    mine(digits_run.folder, in_memory(tmp_path, images), out, overwrite=True)
    assert marks_in(out) == {}


def test_a_digest_that_a_spreadsheet_changed_is_read_from_the_record(
    digits_run: Run, tmp_path: Path
) -> None:
    images = noise()
    out = tmp_path / "rare"
    mine(digits_run.folder, in_memory(tmp_path, images), out)
    mark(out, {"3": "1", "12": "0"})
    text = (out / "scores.csv").read_text()
    (out / "scores.csv").write_text(re.sub(r"pixels:[0-9a-f]+", "2E+69", text))
    mine(digits_run.folder, in_memory(tmp_path, images[::-1]), out, overwrite=True)
    assert marks_in(out) == {"36": "1", "27": "0"}


def test_names_that_we_have_written_are_exact(digits_run: Run, june: Path, tmp_path: Path) -> None:
    """Two photographs may differ in the form of a letter alone; the mark of one is not for the other."""
    folder, out = june / "p", tmp_path / "rare"
    one, two = folder / "caf\xe9.png", folder / "cafe\u0301.png"
    shutil.copy(folder / "0_010.png", one)
    shutil.copy(folder / "1_010.png", two)
    mine(digits_run.folder, data(folder), out)
    mark(out, {one.name: "1", two.name: "0"})
    two.rename(tmp_path / two.name)
    with pytest.warns(UserWarning, match=r"^1 mark in .* cannot be shown"):
        mine(digits_run.folder, data(folder), out, overwrite=True)
    assert marks_in(out) == {one.name: "1"}
    shutil.copytree(out, tmp_path / "earlier")
    mark(tmp_path / "earlier", {one.name: "", two.name: "0", "0_000.png": "1"})
    with (tmp_path / "earlier" / "scores.csv").open("a", encoding="utf-8") as table:
        width = len((out / "scores.csv").read_text().split("\n")[0].split(","))
        table.write(f"{two.name}{',' * (width - 1)}0\n")
    earlier = tmp_path / "earlier" / "scores.csv"
    with pytest.raises(DataError, match="marks 1 image that the collection does not have"):
        mine(digits_run.folder, data(folder), tmp_path / "x", feedback=earlier)
    (tmp_path / two.name).rename(two)
    mine(digits_run.folder, data(folder), out, overwrite=True)
    assert marks_in(out) == {one.name: "1", two.name: "0"}


def test_features_of_distorted_stills_are_not_mixed_with_others(
    digits_run: Run, tmp_path: Path
) -> None:
    """Earlier versions squeezed images that are not square; their results say nothing of it."""
    images = noise(width=12)
    out = tmp_path / "rare"
    mine(digits_run.folder, in_memory(tmp_path, images), out)
    record = json.loads((out / "mine.json").read_text())
    assert record["reading"] == {"stills": "middle square"}
    (out / "mine.json").write_text(json.dumps(record | {"reading": {}}))
    right = np.load(out / "features.npy")
    np.save(out / "features.npy", np.zeros_like(right))
    mine(digits_run.folder, in_memory(tmp_path, images), out, overwrite=True)
    np.testing.assert_array_equal(np.load(out / "features.npy"), right)


def test_a_table_without_digests_names_images_in_memory_by_position(
    digits_run: Run, tmp_path: Path
) -> None:
    images = noise()
    (tmp_path / "mine.csv").write_text("path,wanted\n3,1\n4,0\n")
    mine(
        digits_run.folder,
        in_memory(tmp_path, images),
        tmp_path / "a",
        feedback=tmp_path / "mine.csv",
    )
    assert marks_in(tmp_path / "a") == {"3": "1", "4": "0"}


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_marks_stay_when_the_images_lie_elsewhere(
    digits_run: Run, june: Path, tmp_path: Path, how: str
) -> None:
    out = tmp_path / "rare"
    mine(digits_run.folder, data(june / "p"), out)
    mark(out, MARKED)
    if how == "moved":
        (june / "p").rename(tmp_path / "other")
    else:
        shutil.copytree(june / "p", tmp_path / "other")
    mine(digits_run.folder, data(tmp_path / "other"), out, overwrite=True)
    assert marks_in(out) == MARKED


def test_marks_of_images_that_are_not_mined_now_are_counted_and_go_to_no_other(
    digits_run: Run, june: Path, july: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rare"
    mine(digits_run.folder, data(june / "p"), out)
    mark(out, MARKED)
    make_photos(july / "p", {0: 1})  # the same name and content
    shutil.copy(july / "p" / "0_050.png", july / "p" / "0_001.png")  # the same name alone
    with pytest.warns(UserWarning, match=r"^7 marks in .*scores.csv cannot be shown.*0_001\.png"):
        mine(digits_run.folder, data(july / "p"), out, overwrite=True)
    assert marks_in(out) == {"0_000.png": "0"}
    mine(digits_run.folder, data(july / "p"), out, overwrite=True)
    assert len((out / "marks_of_missing.csv").read_text().splitlines()) == 8, "they stay there"
    mine(digits_run.folder, data(june / "p"), out, overwrite=True)
    assert marks_in(out) == MARKED, "and come back with their images"
    assert not (out / "marks_of_missing.csv").exists()


def test_marks_of_two_folders_with_one_name_are_kept_apart(digits_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "rare"
    for number, folder in enumerate(("a", "b", "c")):
        make_photos(tmp_path / folder, {0: 18, 1: 17}, start=50 * number)
        for one in ("0", "1"):  # cameras count from the beginning, each for itself
            first = sorted((tmp_path / folder).glob(f"{one}_*.png"))[0]
            first.rename(tmp_path / folder / f"IMG_{one}.png")
    said = {"a": {"IMG_0.png": "1", "IMG_1.png": "0"}, "b": {"IMG_0.png": "0", "IMG_1.png": "0"}}
    for folder in ("a", "b", "c", "c"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mine(digits_run.folder, data(tmp_path / folder), out, overwrite=True)
        if folder in said:
            mark(out, said[folder])
    assert len((out / "marks_of_missing.csv").read_text().splitlines()) == 5
    for folder in ("a", "b"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mine(digits_run.folder, data(tmp_path / folder), out, overwrite=True)
        assert marks_in(out) == said[folder]


def one_taken_away(run: Run, june: Path, folder: Path) -> tuple[Path, Path]:
    """A mine folder whose marks are all set, one of them parked; and where its image lies meanwhile."""
    out, aside = folder / "rare", folder / "0_001.png"
    mine(run.folder, data(june / "p"), out)
    mark(out, MARKED)
    (june / "p" / "0_001.png").rename(aside)
    mine(run.folder, data(june / "p"), out, overwrite=True)
    return out, aside


@pytest.mark.filterwarnings("ignore:.* cannot be shown")
def test_marks_that_come_back_survive_a_full_disk(
    digits_run: Run, june: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, aside = one_taken_away(digits_run, june, tmp_path)
    aside.rename(june / "p" / "0_001.png")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(job, "write_csv", full)
        with pytest.raises(OSError, match="No space left"):
            mine(digits_run.folder, data(june / "p"), out, overwrite=True)
    mine(digits_run.folder, data(june / "p"), out, overwrite=True)
    assert marks_in(out) == MARKED


@pytest.mark.filterwarnings("ignore:.* cannot be shown")
def test_marks_come_back_where_the_folder_has_moved(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    out, aside = one_taken_away(digits_run, june, tmp_path)
    (june / "p").rename(tmp_path / "moved")
    aside.rename(tmp_path / "moved" / "0_001.png")
    mine(digits_run.folder, data(tmp_path / "moved"), out, overwrite=True)
    assert marks_in(out) == MARKED


def test_a_damaged_file_of_parked_marks_says_what_it_is(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rare"
    mine(digits_run.folder, data(june / "p"), out)
    (out / "marks_of_missing.csv").write_text("")
    mine(digits_run.folder, data(june / "p"), out, overwrite=True)
    (out / "marks_of_missing.csv").write_text("path,wanted\na.png,1\n")
    with pytest.raises(DataError, match="no longer mined: restore it, or remove it"):
        mine(digits_run.folder, data(june / "p"), out, overwrite=True)


def test_a_table_of_earlier_marks_without_its_columns_says_what_it_is(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rare"
    mine(digits_run.folder, data(june / "p"), out)
    (out / "scores.csv").write_text("path,liked\n0_000.png,1\n")
    with pytest.raises(DataError, match="keeps the marks of earlier calls: restore it, or remove"):
        mine(digits_run.folder, data(june / "p"), out, overwrite=True)


def test_marks_stay_beside_a_column_that_differs_in_capitals(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    out, listed = tmp_path / "rare", data(table(june, "Wanted", {}))
    mine(digits_run.folder, listed, out)
    mark(out, below("p"))
    mine(digits_run.folder, listed, out, overwrite=True)
    assert marks_in(out) == below("p")


def test_marks_of_the_users_table_and_of_an_earlier_call_are_merged(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rare"
    mine(digits_run.folder, data(table(june, "wanted", {"0_010.png": "no"})), out)
    assert marks_in(out) == {"p/0_010.png": "0"}
    mark(out, below("p") | {"p/0_010.png": "1"})
    more = {"0_010.png": "no", "0_011.png": "yes"}
    mine(digits_run.folder, data(table(june, "wanted", more)), out, overwrite=True)
    assert marks_in(out) == below("p") | {"p/0_010.png": "1", "p/0_011.png": "1"}


def test_a_column_wanted_that_means_something_else_is_refused_at_once(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    listed = data(table(june, "wanted", {"0_003.png": "size 0"}))
    with pytest.raises(DataError, match=r"p/0_003\.png: wanted must be .* rename the column"):
        mine(digits_run.folder, listed, tmp_path / "rare")


def feedback(folder: Path, marks: dict[str, str]) -> Path:
    lines = [f"{name},{said}" for name, said in marks.items()]
    (folder / "chosen.csv").write_text("\n".join(["path,wanted", *lines]))
    return folder / "chosen.csv"


def test_removed_in_the_feedback_takes_a_mark_away_and_no_other(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rare"
    mine(digits_run.folder, data(june / "p"), out)
    mark(out, MARKED)
    said = {"0_000.png": "Removed", "0_010.png": "removed", "1_010.png": "1", "no.png": "removed"}
    table = feedback(tmp_path, said)
    mined = mine(digits_run.folder, data(june / "p"), out, feedback=table, overwrite=True)
    left = {name: said for name, said in MARKED.items() if name != "0_000.png"}
    assert marks_in(out) == left | {"1_010.png": "1"}, "and scores.csv has no such word"
    assert "1 mark taken away: chosen.csv says removed." in mined.remarks
    mine(digits_run.folder, data(june / "p"), out, overwrite=True)
    assert marks_in(out) == left | {"1_010.png": "1"}, "it stays away"


def test_empty_cells_of_an_older_download_lose_no_mark_that_was_set_since(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rare"
    mine(digits_run.folder, data(june / "p"), out)
    names = [path.name for path in (june / "p").iterdir()]
    table = feedback(tmp_path, dict.fromkeys(names, "") | {"1_010.png": "1", "0_010.png": "0"})
    mark(out, MARKED)
    mined = mine(digits_run.folder, data(june / "p"), out, feedback=table, overwrite=True)
    assert marks_in(out) == MARKED | {"1_010.png": "1", "0_010.png": "0"}
    assert not [remark for remark in mined.remarks if "taken away" in remark]


def test_a_download_may_be_the_images_own_table(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    listed = data(table(june, "wanted", MARKED | {"0_000.png": "removed"}))
    mine(digits_run.folder, listed, tmp_path / "rare")
    left = {name: said for name, said in MARKED.items() if name != "0_000.png"}
    assert marks_in(tmp_path / "rare") == below("p", left)


@pytest.mark.filterwarnings("ignore:.* cannot be shown")
def test_removed_loses_no_mark_of_an_image_that_is_not_mined_now(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    out, aside = one_taken_away(digits_run, june, tmp_path)
    taken = {"0_000.png": "removed", "0_001.png": "removed", "1_000.png": "1"}
    table = feedback(tmp_path, taken)
    mine(digits_run.folder, data(june / "p"), out, feedback=table, overwrite=True)
    aside.rename(june / "p" / "0_001.png")
    mine(digits_run.folder, data(june / "p"), out, overwrite=True)
    assert marks_in(out) == {name: said for name, said in MARKED.items() if name != "0_000.png"}


def test_a_mark_of_the_users_table_that_is_taken_away_is_said_to_come_back(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    listed = data(table(june, "wanted", MARKED))
    taken = feedback(tmp_path, {"p/0_000.png": "removed"})
    mined = mine(digits_run.folder, listed, tmp_path / "rare", feedback=taken)
    assert "p/0_000.png" not in marks_in(tmp_path / "rare")
    assert any("empty the cell there as well" in remark for remark in mined.remarks)


def test_feedback_that_leaves_marks_of_one_kind_or_none_is_refused(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rare"
    mine(digits_run.folder, data(june / "p"), out)
    mark(out, {"0_000.png": "0", "1_000.png": "1"})
    for taken, words in (
        ({"0_000.png": "removed"}, "marks 1 image, all of them as wanted"),
        ({"0_000.png": "removed", "1_000.png": "removed"}, r"takes all marks away.*scores\.csv"),
    ):
        how = {"feedback": feedback(tmp_path, taken), "overwrite": True}
        with pytest.raises(DataError, match=words):
            mine(digits_run.folder, data(june / "p"), out, **how)  # type: ignore[arg-type]
    assert marks_in(out) == {"0_000.png": "0", "1_000.png": "1"}


@pytest.mark.parametrize("mined", ["june", "june/p", ""])
def test_feedback_may_name_whole_paths_below_the_root_of_the_collection(
    digits_run: Run, june: Path, tmp_path: Path, mined: str
) -> None:
    lines = [f"{june / 'p' / name},0.5,1,0,{said}" for name, said in MARKED.items()]
    header = "filepath,rarity,rarity_rank,rarity_group,rarity_wanted"
    table = tmp_path / "fiftyone.csv"
    table.write_text("\n".join([header, *lines, f"{june / 'gone.png'},0.5,1,0,"]))
    mine(digits_run.folder, data(tmp_path / mined), tmp_path / "rare", feedback=table)
    prefix = {"june": "p/", "june/p": "", "": "june/p/"}[mined]
    assert marks_in(tmp_path / "rare") == {f"{prefix}{name}": said for name, said in MARKED.items()}


def test_feedback_names_images_as_people_write_them_and_each_in_one_way(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    folder = june / "p"
    (folder / "0_010.png").rename(folder / "caf\xe9.png")
    whole = str(folder / "0_000.png")
    table = feedback(tmp_path, {"./0_000.png": "1", "cafe\u0301.png": "0"})
    mine(digits_run.folder, data(folder), tmp_path / "a", feedback=table)
    assert marks_in(tmp_path / "a") == {"0_000.png": "1", "caf\xe9.png": "0"}
    for other in ("0", "removed"):
        table = feedback(tmp_path, {"0_000.png": "1", whole: other, "0_001.png": "0"})
        words = rf"one image in two ways, as 0_000\.png and as {whole}\. Leave one"
        with pytest.raises(DataError, match=words):
            mine(digits_run.folder, data(folder), tmp_path / "b", feedback=table)
    table = feedback(tmp_path, {"0_000.png": "1", whole: "1", "0_001.png": "0"})
    mine(digits_run.folder, data(folder), tmp_path / "b", feedback=table, overwrite=True)
    assert marks_in(tmp_path / "b") == {"0_000.png": "1", "0_001.png": "0"}
    table.write_bytes("path,wanted\ncaf\xe9.png,1\n0_001.png,0\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8: save it as UTF-8"):
        mine(digits_run.folder, data(folder), tmp_path / "c", feedback=table)


def test_a_mark_that_may_be_of_two_images_is_refused_with_both_names(
    digits_run: Run, june: Path, tmp_path: Path
) -> None:
    folder, out = june / "p", tmp_path / "rare"
    shutil.copy(folder / "0_010.png", folder / "a\nb.png")
    shutil.copy(folder / "1_010.png", folder / "a\\nb.png")
    mine(digits_run.folder, data(folder), out)
    mark(out, MARKED)
    table = feedback(tmp_path, {r"a\nb.png": "1", "0_010.png": "0"})
    both = r"may be 'a\\nb\.png' or 'a\\\\nb\.png'.*Rename one"
    with pytest.raises(DataError, match=both):
        mine(digits_run.folder, data(folder), out, feedback=table, overwrite=True)
    with (out / "scores.csv").open(encoding="utf-8") as file:
        rows = file.read()
    lines = [line + "1" if line.startswith(r"a\nb") else line for line in rows.split("\n")]
    (out / "scores.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=both):
        mine(digits_run.folder, data(folder), out, overwrite=True)
    (out / "scores.csv").write_text(rows)
    table = feedback(tmp_path, {r"a\nb.png": "removed", "0_010.png": "0"})
    with pytest.raises(DataError, match=both):
        mine(digits_run.folder, data(folder), out, feedback=table, overwrite=True)
    table = tmp_path / "marks.jsonl"
    table.write_text('{"path": "a\\nb.png", "wanted": 1}\n')
    mine(digits_run.folder, data(folder), out, feedback=table, overwrite=True)
