"""Mining from files to files: equal however it was interrupted or split, and refused where nothing could come."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import timm
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from photo_folder import make_photos, photo
from sdclr import PretrainConfig, Run, cli, pretrain, recipe
from sdclr.data import DataConfig, build_data
from sdclr.data.collections.image_files import ImageFiles
from sdclr.errors import (
    ConfigError,
    DataError,
    MissingInputError,
    NonFiniteError,
    RunFolderError,
    SdclrError,
)
from sdclr.evaluation.rarity import SCORES, Evidence, cells, maps
from sdclr.evaluation.rarity.judging import few_classes
from sdclr.image_records import moving_average, read_records
from sdclr.jobs.mine import copies, looking, mine
from sdclr.jobs.mine.folder import MineRecord, read_state, read_stored, write_state
from sdclr.presentation.mined import MinedImages
from sdclr.presentation.mined_summary import summary
from sdclr.presentation.progress import NoProgress
from sdclr.storage import row_parts

pytestmark = pytest.mark.filterwarnings("ignore:.*trained on none of these images")

MONTHS = ("june", "july")


def data(folder: Path, **settings: Any) -> DataConfig:
    return DataConfig(name="images", path=str(folder), subset="all", **settings)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_same(a: MinedImages, b: MinedImages) -> None:
    assert list(a.names) == list(b.names)
    np.testing.assert_array_equal(a.score, b.score)
    for name, values in a.components.items():
        np.testing.assert_array_equal(values, b.components[name])
    np.testing.assert_array_equal(a.duplicate_of, b.duplicate_of)
    np.testing.assert_array_equal(a.group, b.group)


class StopAfter(NoProgress):
    """Fails after so many images, as a kill would; remembers what was done before."""

    def __init__(self, images: int = 10**9) -> None:
        self.left = images
        self.begun_at: dict[str, int] = {}

    def add(self, description: str, total: int, unit: str = "steps", done: int = 0) -> int:
        self.begun_at[description] = done
        return 0

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        self.left -= amount
        if self.left < 0:
            raise KeyboardInterrupt


def test_every_image_gets_a_row_with_its_score_rank_and_group(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    mined = mine(digits_run.folder, data(photos), tmp_path / "rare", scores=["knn_1"])
    rows = rows_of(tmp_path / "rare")
    assert [row["path"] for row in rows] == sorted(path.name for path in photos.iterdir())
    assert list(rows[0]) == (
        [
            "path",
            "score",
            "rank",
            "knn_1",
            "covering_4",
            "group",
            "group_size",
            "duplicate_of",
            "junk",
            "wanted",
        ]
    )
    assert [float(row["score"]) for row in rows] == mined.score.tolist()
    assert sorted(int(row["rank"]) for row in rows) == list(range(1, 61))
    by_score = sorted(rows, key=lambda row: -float(row["score"]))
    assert [int(row["rank"]) for row in by_score] == list(range(1, 61))
    table = pyarrow.parquet.read_table(tmp_path / "rare" / "scores.parquet")
    assert table["score"].to_pylist() == mined.score.tolist()
    assert table.column_names == list(rows[0])
    features = np.load(tmp_path / "rare" / "features.npy")
    score = SCORES["knn_1"].score(Evidence(torch.from_numpy(features)))
    np.testing.assert_allclose(mined.components["knn_1"], score.numpy(), rtol=1e-12)
    assert read_state(tmp_path / "rare").state == "finished"


def test_features_are_those_that_embed_writes(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    from sdclr.jobs.embed import embed

    mine(digits_run.folder, data(photos), tmp_path / "rare")
    embedded = np.load(embed(digits_run.folder, data(photos), tmp_path / "f.npz"))["features"]
    np.testing.assert_allclose(np.load(tmp_path / "rare" / "features.npy"), embedded, rtol=1e-5)


def test_groups_are_from_the_rarest_on_and_the_sheet_follows_them(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    mined = mine(digits_run.folder, data(photos), tmp_path / "rare")
    assert (np.diff(mined.group_score) <= 0).all()
    assert set(mined.group.tolist()) == set(range(len(mined.group_score)))
    for number, score in enumerate(mined.group_score):
        members = (mined.group == number) & ~mined.is_copy & ~mined.is_junk
        assert mined.score[members].mean() == pytest.approx(score)
    places = [(mined.group[row], -mined.score[row]) for row in mined.sheet]
    assert places == sorted(places)
    fit = np.flatnonzero(~mined.is_copy & ~mined.is_junk)
    assert sorted(mined.sheet.tolist()) == fit.tolist()
    assert mined.place.shape == (60, 2)


def test_copies_are_folded_and_junk_stays_off_the_sheet(digits_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    # kinds that differ in everything: hashes of different ones are not alike
    make_photos(folder, dict.fromkeys(range(120), 1))
    photo(7, 0).save(folder / "zz_copy.png")
    photo(7, 0).save(folder / "zz_copy_again.jpg", quality=95)
    Image.new("RGB", (48, 48), (90, 90, 90)).save(folder / "a_blank.png")
    mined = mine(digits_run.folder, data(folder), tmp_path / "rare")
    names = list(mined.names)
    original = names.index("7_000.png")
    assert mined.duplicate_of[names.index("zz_copy.png")] == original
    assert mined.duplicate_of[names.index("zz_copy_again.jpg")] == original
    assert mined.copies[original] == 2
    shown = {names[row] for row in mined.sheet}
    assert "7_000.png" in shown
    assert not shown & {"zz_copy.png", "zz_copy_again.jpg", "a_blank.png"}
    rows = {row["path"]: row for row in rows_of(tmp_path / "rare")}
    assert rows["a_blank.png"]["junk"] == "blank"
    assert rows["zz_copy.png"]["duplicate_of"] == "7_000.png"
    assert rows["zz_copy.png"]["group"] == rows["7_000.png"]["group"]


def test_an_interrupted_call_goes_on_and_gives_the_same(
    digits_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_parts, "ROWS_PER_PART", 20)
    whole = mine(digits_run.folder, data(photos), tmp_path / "whole")
    for images in (30, 15, 30):
        with pytest.raises(KeyboardInterrupt):
            mine(digits_run.folder, data(photos), tmp_path / "rare", progress=StopAfter(images))
    last = StopAfter()
    again = mine(digits_run.folder, data(photos), tmp_path / "rare", progress=last)
    assert last.begun_at.get("features of 60 images", 60) > 0, "finished parts are kept"
    assert_same(whole, again)
    kept = {path.name for path in (tmp_path / "rare").iterdir()}
    assert not [name for name in kept if "partial" in name or name.endswith(".tmp")]


def test_what_a_killed_call_has_seen_is_kept_where_the_collection_has_changed(
    digits_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_parts, "ROWS_PER_PART", 20)
    monkeypatch.setattr(row_parts, "FEWEST_ROWS", 20)
    out = tmp_path / "rare"
    names = sorted(path.name for path in photos.iterdir())
    for images, change in ((45, "new"), (25, "gone"), (10, "other")):
        with pytest.raises(KeyboardInterrupt):
            mine(digits_run.folder, data(photos), out, progress=StopAfter(images))
        if change == "new":
            shutil.copy(photos / names[7], photos / "00_first.png")
        elif change == "gone":
            (photos / names[3]).unlink()
        else:
            shutil.copy(photos / names[9], photos / names[30])
    last = StopAfter()
    again = mine(digits_run.folder, data(photos), out, progress=last)
    looked_at = [task for task in last.begun_at if task.startswith("features")]
    assert len(looked_at) == 1
    assert int(looked_at[0].split()[2]) < 30, "of 60"
    assert_same(mine(digits_run.folder, data(photos), tmp_path / "whole"), again)
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in out.iterdir()) == files
    shutil.copy(photos / names[12], photos / "zz_new.png")
    for place in range(25):
        shutil.copy(photos / names[12], photos / f"zz_{place}.png")
    with pytest.raises(KeyboardInterrupt):
        mine(digits_run.folder, data(photos), out, overwrite=True, progress=StopAfter(21))
    for path in photos.glob("zz_*"):
        path.unlink()
    mine(digits_run.folder, data(photos), out, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == files, "nothing is left behind"


def test_a_photo_that_was_edited_where_no_sample_is_taken_is_looked_at_again(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    """Of an uncompressed file the digest sees 12 KB: its begin, its middle and its end."""
    edited = photos / "00_plain.tif"
    pixels = np.array(photo(7, 0, side=160))
    Image.fromarray(pixels).save(edited)
    mine(digits_run.folder, data(photos), tmp_path / "rare")
    pixels[20:60] = np.random.default_rng(0).integers(0, 256, pixels[20:60].shape)
    Image.fromarray(pixels).save(edited)
    os.utime(edited, ns=(1, 1))  # a file system's clock may be coarse
    last = StopAfter()
    again = mine(digits_run.folder, data(photos), tmp_path / "rare", overwrite=True, progress=last)
    assert [task for task in last.begun_at if task.startswith("features")] == [
        "features of 1 images"
    ]
    assert_same(mine(digits_run.folder, data(photos), tmp_path / "whole"), again)


def test_a_word_that_is_no_mark_is_said_before_any_image_is_looked_at(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "marks.csv").write_text("path,wanted\n7_000.png,Ja\n")
    with pytest.raises(DataError, match=r"marks\.csv, line 2: .*Ja"):
        mine(digits_run.folder, data(photos), tmp_path / "rare", feedback=tmp_path / "marks.csv")
    assert not (tmp_path / "rare").exists()


def test_a_call_that_was_killed_while_it_ranked_looks_at_nothing_again(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        mine(digits_run.folder, data(photos), tmp_path / "rare", progress=StopAfter(70))
    last = StopAfter()
    mine(digits_run.folder, data(photos), tmp_path / "rare", progress=last)
    assert not [task for task in last.begun_at if task.startswith("features")]


def test_against_an_earlier_folder_the_scores_are_those_from_scratch(
    digits_run: Run, tmp_path: Path
) -> None:
    make_photos(tmp_path / "all" / "june", {0: 20, 1: 17, 2: 8})
    make_photos(tmp_path / "all" / "july", {0: 5, 3: 3}, start=50)
    mine(digits_run.folder, data(tmp_path / "all" / "june"), tmp_path / "june")
    seen = StopAfter()
    both = mine(
        digits_run.folder,
        data(tmp_path / "all" / "july"),
        tmp_path / "july",
        against=tmp_path / "june",
        progress=seen,
    )
    assert "features of 8 images" in seen.begun_at, "only new images are looked at"
    scratch = mine(digits_run.folder, data(tmp_path / "all"), tmp_path / "scratch")
    assert_same(scratch, both)
    assert both.duplicate_of[12] == 4, (
        "a picture of june is a copy of one of july, which comes first"
    )
    assert sorted(both.sheet) == [0, 1, 2, 3, 5, 6, 7], "which is nothing new for that"
    rows = rows_of(tmp_path / "july")
    assert [row["path"] for row in rows if row["new"]] == [
        row["path"] for row in rows if row["path"].startswith("july/")
    ]


def test_where_every_new_image_is_a_copy_nothing_is_left_and_that_is_said(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    mine(digits_run.folder, data(photos), tmp_path / "first")
    shutil.copytree(photos, tmp_path / "again")
    found = mine(
        digits_run.folder, data(tmp_path / "again"), tmp_path / "second", against=tmp_path / "first"
    )
    assert len(found.sheet) == 0
    assert sum("No image is left for the sheet" in remark for remark in found.remarks) == 1
    assert "rarest by" not in summary(found)
    assert "The sheet is empty" in (tmp_path / "second" / "index.html").read_text()


@pytest.mark.parametrize("kind", ["patterns", "lists", "shards"])
def test_against_earlier_images_of_the_same_folder_none_is_left_out(
    digits_run: Run, tmp_path: Path, kind: str
) -> None:
    root = tmp_path / "all"
    make_photos(root / "june", {0: 20, 1: 15})
    make_photos(root / "july", {0: 4, 3: 4}, start=50)
    places = {month: root / f"{month}.{'csv' if kind == 'lists' else 'tar'}" for month in MONTHS}
    for month, place in places.items():
        names = [f"{month}/{path.name}" for path in sorted((root / month).iterdir())]
        if kind == "patterns":
            for name in names:
                (root / name).rename(root / name.replace("/", "_"))
            (root / month).rmdir()
            places[month] = root / f"{month}_*.png"
        elif kind == "lists":
            place.write_text("\n".join(["path", *names]))
        else:
            with tarfile.open(place, "w") as shard:
                for name in names:
                    shard.add(root / name, name)
            shutil.rmtree(root / month)
    mine(digits_run.folder, data(places["june"]), tmp_path / "june")
    both = mine(
        digits_run.folder, data(places["july"]), tmp_path / "july", against=tmp_path / "june"
    )
    assert not [remark for remark in both.remarks if "gone" in remark]
    for place in places.values():
        if kind == "lists":
            place.unlink()
    scratch = mine(digits_run.folder, data(root), tmp_path / "scratch")
    assert len(scratch) == 43
    assert_same(scratch, both)


def test_of_a_folder_that_has_grown_only_new_and_changed_images_are_looked_at(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    mine(digits_run.folder, data(photos), tmp_path / "first")
    make_photos(photos, {3: 2}, start=90)
    photo(5, 5).save(photos / "0_000.png")
    (photos / "1_000.png").unlink()
    for how in ("against", "again"):
        seen = StopAfter()
        if how == "against":
            out, more = tmp_path / "second", {"against": tmp_path / "first"}
        else:
            out, more = tmp_path / "first", {"overwrite": True}
        grown = mine(digits_run.folder, data(photos), out, progress=seen, **more)  # type: ignore[arg-type]
        assert "features of 3 images" in seen.begun_at
        scratch = mine(digits_run.folder, data(photos), tmp_path / f"scratch {how}")
        assert_same(scratch, grown)
    assert "1 images of the earlier collection are missing" in " ".join(
        read_state(tmp_path / "second").remarks
    )


def test_against_a_folder_of_another_backbone_is_refused(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    mine(digits_run.folder, data(photos), tmp_path / "first")
    with pytest.raises(ConfigError, match="another backbone"):
        mine(
            digits_run.folder,
            data(photos),
            tmp_path / "second",
            against=tmp_path / "first",
            image_size=16,
        )
    with pytest.raises(ConfigError, match="grey_bits"):
        mine(
            digits_run.folder,
            data(photos, grey_bits=12),
            tmp_path / "third",
            against=tmp_path / "first",
        )
    with pytest.raises(MissingInputError, match="is not a folder of sdclr mine"):
        mine(digits_run.folder, data(photos), tmp_path / "fourth", against=photos)


def test_a_file_of_weights_may_fit_in_order(photos: Path, tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", pretrained=False)
    renamed = {f"x{number}": one for number, one in enumerate(network.state_dict().values())}
    torch.save(renamed, tmp_path / "w.pth")
    words = ["mine", str(photos), "--backbone", "timm:test_resnet", "--image-size", "16"]
    words += ["--weights", str(tmp_path / "w.pth"), "--out", str(tmp_path / "rare")]
    for match, code in (("exact", 1), ("order", 0)):
        request = [*words, "--device", "cpu", "--weights-match", match]
        assert CliRunner().invoke(cli.app, request).exit_code == code


def test_marks_survive_and_rank_what_is_like_them(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rare"
    mine(digits_run.folder, data(photos), out)
    rows = rows_of(out)
    marks = {f"2_00{i}.png": "yes" for i in range(4)} | {f"0_00{i}.png": "no" for i in range(6)}
    for row in rows:
        row["wanted"] = marks.get(row["path"], "")
    with (out / "scores.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    shutil.copy(out / "scores.csv", tmp_path / "marks.csv")
    mined = mine(
        digits_run.folder,
        data(photos),
        out,
        feedback=tmp_path / "marks.csv",
        overwrite=True,
    )
    assert mined.score_name == "feedback"
    first = [mined.names[row] for row in np.argsort(-mined.score, kind="stable")[:10]]
    assert sum(name.startswith("2_") for name in first) >= 7
    assert "are expected to be wanted" in " ".join(mined.remarks)
    mine(digits_run.folder, data(photos), out, overwrite=True)
    kept = {row["path"]: row["wanted"] for row in rows_of(out) if row["wanted"]}
    assert kept == {name: "1" if said == "yes" else "0" for name, said in marks.items()}


def test_likeness_puts_images_of_the_kind_first(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    inside = mine(digits_run.folder, data(photos), tmp_path / "a", like=[str(photos / "2_001.png")])
    by_name = mine(digits_run.folder, data(photos), tmp_path / "b", like=["2_001.png"])
    photo(2, 1).save(tmp_path / "elsewhere.png")
    outside = mine(
        digits_run.folder, data(photos), tmp_path / "c", like=[str(tmp_path / "elsewhere.png")]
    )
    for mined in (inside, by_name, outside):
        assert mined.score_name == "likeness"
        best = int(mined.score.argmax())
        assert mined.names[best] == "2_001.png"
        assert mined.score[best] == pytest.approx(1, abs=1e-6)
    with pytest.raises(MissingInputError, match="no such file, and no image of that name"):
        mine(digits_run.folder, data(photos), tmp_path / "d", like=["nothing.png"])


def test_arrays_are_mined_as_files_are(digits_run: Run, tmp_path: Path) -> None:
    mined = mine(digits_run.folder, DataConfig(name="digits"), tmp_path / "rare", like=["17"])
    assert mined.score.argmax() == 17
    labels = build_data(DataConfig(name="digits")).train.labels
    assert labels is not None
    assert mined.columns["class"] == [str(label) for label in labels.tolist()]
    stored = read_stored(tmp_path / "rare")
    assert stored is not None
    assert stored.features.shape == (1437, 32)


def test_other_columns_of_a_table_and_odd_names_reach_the_tables(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    names = ["=1+1.png", 'a "b",c.png', "naïve <script>.png", "line\nbreak.png"]
    for name in names:
        shutil.copy(photos / "0_000.png", photos / name)
    odd = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    shutil.copy(photos / "0_001.png", photos / odd)
    mined = mine(digits_run.folder, data(photos), tmp_path / "rare")
    assert set(names) | {odd} <= set(mined.names)
    paths = [row["path"] for row in rows_of(tmp_path / "rare")]
    assert {"'=1+1.png", 'a "b",c.png', "naïve <script>.png"} <= set(paths)
    assert {"line\\nbreak.png", "caf\\xe9.png"} <= set(paths)
    table = pyarrow.parquet.read_table(tmp_path / "rare" / "scores.parquet")
    assert {"=1+1.png", "line\nbreak.png", "caf\\xe9.png"} <= set(table["path"].to_pylist())

    listed = tmp_path / "photos.csv"
    lines = [
        f"photos/{name},{i}"
        for i, name in enumerate(sorted(p.name for p in photos.iterdir() if "_" in p.name))
    ]
    listed.write_text("path,score\n" + "\n".join(lines) + "\n")
    mine(digits_run.folder, data(listed), tmp_path / "listed")
    rows = rows_of(tmp_path / "listed")
    assert [row["score_"] for row in rows] == [line.rsplit(",", 1)[1] for line in lines]


def test_groups_of_the_user_are_no_neighbours_of_each_other(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    plain = mine(digits_run.folder, data(photos), tmp_path / "plain")
    pairs = torch.arange(60) // 2
    grouped = mine(
        digits_run.folder, data(photos), tmp_path / "grouped", groups=pairs, score="knn_1"
    )
    features = torch.from_numpy(np.load(tmp_path / "grouped" / "features.npy"))
    if not grouped.is_copy.any():
        expected = SCORES["knn_1"].score(Evidence(features, pairs)).numpy()
        np.testing.assert_allclose(grouped.score, expected, rtol=1e-12)
    assert plain.names == grouped.names


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (torch.arange(3), "got 3 groups for 60 images"),
        (torch.zeros(60, dtype=torch.int64), "one group covers all 60"),
        (torch.arange(60).unsqueeze(1), r"one whole number an image, \[60\], got"),
        (torch.arange(60) / 2, "one whole number an image"),
        (np.arange(59), "got 59 groups for 60 images"),
    ],
)
def test_groups_that_cannot_be_are_refused_before_any_image_is_looked_at(
    digits_run: Run, photos: Path, tmp_path: Path, groups: torch.Tensor, words: str
) -> None:
    seen = StopAfter()
    with pytest.raises(DataError, match=words):
        mine(digits_run.folder, data(photos), tmp_path / "g", groups=groups, progress=seen)
    assert not [task for task in seen.begun_at if task.startswith("features")]


def test_a_picture_that_lies_in_three_folders_does_not_make_them_one(
    digits_run: Run, tmp_path: Path
) -> None:
    means = {}
    for name in ("apart", "shared"):
        photos = tmp_path / name
        for kind, folder in enumerate("abcd"):
            make_photos(photos / folder, {kind: 15})
        if name == "shared":
            for folder in "bc":
                shutil.copy(photos / "a" / "0_000.png", photos / folder / "from_a.png")
        settings = data(photos).with_values({"group_by": "folder"})
        mined = mine(digits_run.folder, settings, tmp_path / f"rare {name}")
        rows = [row for row, path in enumerate(mined.names) if path.startswith("a/")]
        means[name] = float(mined.score[rows].mean())
    assert means["shared"] == pytest.approx(means["apart"], rel=0.1)


def test_a_group_of_nearly_all_images_is_remarked(digits_run: Run, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos / "most", {0: 30, 1: 30})
    make_photos(photos / "few", {2: 4})
    mine(digits_run.folder, data(photos).with_values({"group_by": "folder"}), tmp_path / "rare")
    remarks = " ".join(read_state(tmp_path / "rare").remarks)
    assert "compared with 4 others at most, and not with 50" in remarks


def test_a_score_that_wants_more_neighbours_than_there_are_is_remarked(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    for score, num_more in (("knn_50", 0), ("knn_200", 1)):
        mined = mine(digits_run.folder, data(photos), tmp_path / score, score=score)
        said = [one for one in mined.remarks if "compares with the" in one]
        assert len(said) == num_more, said
    assert said[0].startswith(
        f"knn_200 compares with the 200 nearest images, but there are only {len(mined) - 1}"
    )


def test_groups_named_by_a_pattern_are_the_same_as_given_ones(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    names = sorted(path.name for path in photos.iterdir())
    by = r"^([0-9])_"
    given = torch.tensor([int(name[0]) for name in names])
    named = data(photos).with_values({"group_by": by})
    found = mine(digits_run.folder, named, tmp_path / "named", score="knn_1")
    expected = mine(
        digits_run.folder, data(photos), tmp_path / "given", score="knn_1", groups=given
    )
    np.testing.assert_array_equal(found.score, expected.score)
    one = data(photos).with_values({"group_by": r"(\.png)"})
    with pytest.raises(DataError, match="into one group"):
        mine(digits_run.folder, one, tmp_path / "one")
    with pytest.raises(ConfigError, match="say the same thing"):
        mine(digits_run.folder, named, tmp_path / "twice", groups=given)


@pytest.mark.parametrize("by", [r"([0-9])_\d+\.png$", "camera"])
def test_against_an_earlier_folder_groups_are_those_from_scratch(
    digits_run: Run, tmp_path: Path, by: str
) -> None:
    make_photos(tmp_path / "all" / "june", {0: 20, 1: 17, 2: 8})
    make_photos(tmp_path / "all" / "july", {0: 5, 3: 3}, start=50)

    def table(*months: str) -> DataConfig:
        listed = tmp_path / f"{'-'.join(months)}.csv"
        paths = [path for month in months for path in sorted((tmp_path / "all" / month).iterdir())]
        lines = [f"{path},camera {path.name[0]}" for path in paths]
        listed.write_text("\n".join(["path,camera", *lines]))
        root = tmp_path / "all" / (months[0] if len(months) == 1 else "")
        named = {"root": str(root), "subset": "all", "group_by": by}
        return DataConfig.parse({"name": "images", "path": str(listed), **named})

    how: dict[str, Any] = {"score": "knn_1"}
    mine(digits_run.folder, table("june"), tmp_path / "june", **how)
    both = mine(
        digits_run.folder, table("july"), tmp_path / "july", against=tmp_path / "june", **how
    )
    scratch = mine(digits_run.folder, table("july", "june"), tmp_path / "scratch", **how)
    assert_same(scratch, both)
    alone = mine(digits_run.folder, data(tmp_path / "all"), tmp_path / "alone", **how)
    assert not np.array_equal(alone.score, both.score), "groups have been respected"


@pytest.mark.parametrize("by", ["group", "density", "new", "class"])
def test_against_an_earlier_folder_groups_may_be_a_column_whose_name_was_taken(
    digits_run: Run, tmp_path: Path, by: str
) -> None:
    make_photos(tmp_path / "all" / "june", {0: 20, 1: 17})
    make_photos(tmp_path / "all" / "july", {0: 5, 3: 3}, start=50)

    def table(*months: str) -> DataConfig:
        listed = tmp_path / f"{'-'.join(months)}.csv"
        paths = [path for month in months for path in sorted((tmp_path / "all" / month).iterdir())]
        lines = [f"{path},kind,camera {path.name[0]}" for path in paths]
        listed.write_text("\n".join([f"path,label,{by}", *lines]))
        root = tmp_path / "all" / (months[0] if len(months) == 1 else "")
        named = {"root": str(root), "subset": "all", "group_by": by}
        return DataConfig.parse({"name": "images", "path": str(listed), **named})

    how: dict[str, Any] = {"score": "knn_1", "scores": ["density"]}
    mine(digits_run.folder, table("june"), tmp_path / "june", **how)
    both = mine(
        digits_run.folder, table("july"), tmp_path / "july", against=tmp_path / "june", **how
    )
    scratch = mine(digits_run.folder, table("july", "june"), tmp_path / "scratch", **how)
    assert_same(scratch, both)
    written = {by: f"{by}_"}
    rows = [row for row in rows_of(tmp_path / "july") if row["path"].startswith("july/")]
    assert {row[written[by]] for row in rows} == {"camera 0", "camera 3"}
    assert {row["new"] for row in rows} == {"yes"}
    assert read_state(tmp_path / "july").table_columns == written


def test_against_a_chain_of_folders_keeps_what_the_users_tables_say(
    digits_run: Run, tmp_path: Path
) -> None:
    months = {"june": {0: 20, 1: 17}, "july": {0: 5, 3: 3}, "august": {1: 4}}
    for start, (month, counts) in enumerate(months.items()):
        make_photos(tmp_path / "all" / month, counts, start=50 * start)
        paths = sorted((tmp_path / "all" / month).iterdir())
        lines = [f"{path},digit {path.name[0]},{month} camera" for path in paths]
        header = "path,label,camera" if month == "june" else "path,label,lens"
        (tmp_path / f"{month}.csv").write_text("\n".join([header, *lines]))

    def table(month: str) -> DataConfig:
        root = str(tmp_path / "all" / month)
        named = {"name": "images", "path": str(tmp_path / f"{month}.csv"), "root": root}
        return DataConfig.parse({**named, "subset": "all"})

    before: Path | None = None
    for month in months:
        mine(digits_run.folder, table(month), tmp_path / month, against=before)
        before = tmp_path / month
    rows = rows_of(tmp_path / "august")
    assert len(rows) == 49
    for row in rows:
        month, name = row["path"].split("/")
        assert row["class"] == f"digit {name[0]}"
        said = (f"{month} camera", "") if month == "june" else ("", f"{month} camera")
        assert (row["camera"], row["lens"]) == said
    (tmp_path / "july" / "scores.csv").unlink()
    with pytest.warns(
        UserWarning, match=r"only the earlier call had are left empty: .*scores\.csv"
    ):
        mine(
            digits_run.folder,
            table("august"),
            tmp_path / "august",
            against=tmp_path / "july",
            overwrite=True,
        )
    assert "camera" not in rows_of(tmp_path / "august")[0]


def test_against_an_earlier_folder_a_second_call_looks_only_at_what_has_come_since(
    digits_run: Run, tmp_path: Path
) -> None:
    make_photos(tmp_path / "all" / "june", {0: 20, 1: 17})
    make_photos(tmp_path / "all" / "july", {0: 5, 3: 3}, start=50)
    mine(digits_run.folder, data(tmp_path / "all" / "june"), tmp_path / "june")
    july, how = data(tmp_path / "all" / "july"), {"against": tmp_path / "june", "overwrite": True}
    mine(digits_run.folder, july, tmp_path / "july", **how)  # type: ignore[arg-type]
    make_photos(tmp_path / "all" / "july", {5: 2}, start=90)
    (tmp_path / "all" / "july" / "0_050.png").unlink()
    seen = StopAfter()
    again = mine(digits_run.folder, july, tmp_path / "july", progress=seen, **how)  # type: ignore[arg-type]
    assert "features of 2 images" in seen.begun_at
    assert_same(mine(digits_run.folder, data(tmp_path / "all"), tmp_path / "scratch"), again)
    new = [row["path"] for row in rows_of(tmp_path / "july") if row["new"]]
    assert len(new) == 9, "new against june, also those that were looked at before"


def test_against_an_earlier_folder_without_the_column_of_groups_is_an_error(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    mine(digits_run.folder, data(photos), tmp_path / "first")
    make_photos(tmp_path / "new", {3: 2}, start=90)
    lines = [f"{path},{path.name}" for path in sorted((tmp_path / "new").iterdir())]
    (tmp_path / "new.csv").write_text("\n".join(["path,camera", *lines]))
    named = {"root": str(tmp_path / "new"), "subset": "all", "group_by": "camera"}
    new = DataConfig.parse({"name": "images", "path": str(tmp_path / "new.csv"), **named})
    with pytest.raises(ConfigError, match="has no such column"):
        mine(digits_run.folder, new, tmp_path / "later", against=tmp_path / "first")


def test_kinds_first_orders_groups_by_how_little_they_are_like_those_before(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    mined = mine(digits_run.folder, data(photos), tmp_path / "rare", order="kinds")
    covering = mined.components["covering_4"]
    for number, score in enumerate(mined.group_score):
        members = (mined.group == number) & ~mined.is_copy & ~mined.is_junk
        assert covering[members].max() == score
    assert (np.diff(mined.group_score) <= 0).all()
    assert "many kinds are seen early" in mined.order_name
    with pytest.raises(ConfigError, match="--order must be rarest or kinds"):
        mine(digits_run.folder, data(photos), tmp_path / "odd", order="odd")


def test_a_run_that_kept_records_ranks_by_them(photos: Path, tmp_path: Path) -> None:
    values = {
        "data": {"name": "images", "subset": "all", "path": str(photos)},
        "views": {"size": 8},
        "backbone": {"name": "resnet10", "width": 2},
        "method": {"name": "simclr"},
        "epochs": 2,
        "batch_size": 20,
    }
    kept = pretrain(PretrainConfig.parse(values | {"record_images": True}), tmp_path / "kept")
    config = PretrainConfig.from_yaml(kept.config_path)
    mined = mine(kept, config.data, tmp_path / "r", score="loss", scores=["colt"], as_trained=True)
    records = read_records(kept.folder, 60)
    np.testing.assert_array_equal(mined.score, records.losses[-1].double())
    expected = -moving_average(records.masses, 0.97)
    np.testing.assert_array_equal(mined.components["colt"], expected)
    plain = pretrain(PretrainConfig.parse(values), tmp_path / "plain")
    with pytest.raises(DataError, match="record_images=true"):
        mine(plain, config.data, tmp_path / "p", score="loss", as_trained=True)


def test_labels_that_are_known_judge_the_ranking_and_change_nothing(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    names = sorted(path.name for path in photos.iterdir())
    labels = [name[0] for name in names]
    table = photos.parent / "labelled.csv"
    lines = [f"{photos.name}/{name},{label}" for name, label in zip(names, labels, strict=True)]
    table.write_text("path,label\n" + "\n".join(lines) + "\n")
    known = mine(digits_run.folder, data(table), tmp_path / "known")
    plain = mine(digits_run.folder, data(photos), tmp_path / "plain")
    np.testing.assert_array_equal(known.score, plain.score)
    assert "cannot be known without labels" in plain.quality.sentence
    few = few_classes(np.unique(labels, return_inverse=True)[1])
    wanted = np.isin(np.unique(labels, return_inverse=True)[1], few)
    assert f"AUROC {roc_auc_score(wanted, known.score):.2f}" in known.quality.sentence


def test_chosen_images_are_copied_under_safe_names_and_nothing_is_written_over(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    shutil.copy(photos / "0_000.png", photos / "=odd name.png")
    chosen = tmp_path / "chosen"
    mined = mine(
        digits_run.folder,
        data(photos),
        tmp_path / "rare",
        copy_to=chosen,
        top=len(list(photos.iterdir())),
    )
    copies = sorted(chosen.iterdir())
    assert len(copies) == len(mined.sheet)
    for path, row in zip(copies, mined.sheet.tolist(), strict=True):
        assert path.read_bytes() == (photos / mined.names[row]).read_bytes()
        assert path.name.isascii()
        assert " " not in path.name
        assert "=" not in path.name
    with pytest.raises(ConfigError, match="holds files already"):
        mine(digits_run.folder, data(photos), tmp_path / "b", copy_to=chosen)
    assert not (tmp_path / "b").exists(), "before any work"


def test_copies_that_a_killed_call_left_are_made_again(
    digits_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, chosen = tmp_path / "rare", tmp_path / "chosen"
    copied: list[Path] = []

    def killed(files: object, position: int, path: Path) -> None:
        if len(copied) == 2:
            raise KeyboardInterrupt
        path.write_bytes(b"half")
        copied.append(path)

    with monkeypatch.context() as patch:
        patch.setattr("sdclr.jobs.mine.copies._copy_file", killed)
        with pytest.raises(KeyboardInterrupt):
            mine(digits_run.folder, data(photos), out, copy_to=chosen, top=5)
    mined = mine(digits_run.folder, data(photos), out, copy_to=chosen, top=5)
    for path, row in zip(sorted(chosen.iterdir()), mined.sheet[:5].tolist(), strict=True):
        assert path.read_bytes() == (photos / mined.names[row]).read_bytes()


def test_copies_of_a_call_that_was_killed_once_it_was_recorded_are_left_alone(
    digits_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tmp_path / "chosen"

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sdclr.jobs.mine.job.copies_are_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            mine(digits_run.folder, data(photos), tmp_path / "rare", copy_to=chosen, top=5)
    with pytest.raises(ConfigError, match="holds files already"):
        mine(digits_run.folder, data(photos), tmp_path / "other", copy_to=chosen, top=2)
    assert len(list(chosen.glob("0*"))) == 5


def test_copies_that_a_kill_left_are_made_again_though_a_call_without_copies_came_between(
    digits_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, chosen = tmp_path / "rare", tmp_path / "chosen"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sdclr.jobs.mine.copies._copy_file", killed)
        with pytest.raises(KeyboardInterrupt):
            mine(digits_run.folder, data(photos), out, copy_to=chosen, top=3)
    mine(digits_run.folder, data(photos), out)
    mine(digits_run.folder, data(photos), out, copy_to=chosen, top=3, overwrite=True)
    assert len(list(chosen.iterdir())) == 3


def test_copies_are_made_again_after_a_kill_that_came_before_the_call_was_recorded(
    digits_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, chosen = tmp_path / "rare", tmp_path / "chosen"

    def killed(folder: Path, record: MineRecord) -> None:
        if record.state == "finished":
            raise KeyboardInterrupt
        write_state(folder, record)

    with monkeypatch.context() as patch:
        patch.setattr("sdclr.jobs.mine.job.write_state", killed)
        with pytest.raises(KeyboardInterrupt):
            mine(digits_run.folder, data(photos), out, copy_to=chosen, top=3)
    assert read_state(out).state == "features"
    leftover = out / ".features.npy.0123456789abcdef.tmp"
    leftover.write_bytes(b"half")
    others = out / ".notes.txt.0123456789abcdef.tmp"
    others.write_text("of another program")
    mine(digits_run.folder, data(photos), out, copy_to=chosen, top=3)
    assert len(list(chosen.iterdir())) == 3
    assert read_state(out).state == "finished"
    assert not leftover.exists()
    assert others.exists(), "nothing of a name that is not ours is removed"


@pytest.mark.parametrize("recorded", ["", "[\n", '"0001_b.png"\n', '"0001_a.png"\n'])
def test_nothing_but_our_own_copies_is_removed(
    digits_run: Run, photos: Path, tmp_path: Path, recorded: str
) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / ".sdclr-copying").write_text(recorded)
    (chosen / "0001_a.png").write_text("copied")
    (chosen / "2024_holiday.jpg").write_text("precious")
    before = sorted(photos.iterdir())
    with pytest.raises(ConfigError, match="holds files already"):
        mine(digits_run.folder, data(photos), tmp_path / "rare", copy_to=chosen)
    assert (chosen / "2024_holiday.jpg").read_text() == "precious"
    assert (chosen / "0001_a.png").exists()
    for path in chosen.glob("[0-9]*"):
        path.unlink()
    first = before[0].name
    (chosen / ".sdclr-copying").write_text(f'"../photos/{first}"\n"{photos / first}"\n".."\n3\n')
    mine(digits_run.folder, data(photos), tmp_path / "rare", copy_to=chosen, top=2)
    assert len(list(chosen.iterdir())) == 2
    assert sorted(photos.iterdir()) == before


def test_a_file_that_is_put_there_meanwhile_is_neither_overwritten_nor_removed(
    digits_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, out = tmp_path / "chosen", tmp_path / "rare"
    mined = mine(digits_run.folder, data(photos), out)
    second = f"0002_{copies.safe_name(mined.names[mined.sheet[1]], keep_suffix=True)}"

    def slow(files: ImageFiles, position: int, path: Path) -> None:
        (chosen / second).write_text("precious")
        copy(files, position, path)

    def looked_at(*arguments: object, **keywords: object) -> None:
        (chosen / "note.txt").write_text("precious")

    copy = copies._copy_file
    with monkeypatch.context() as patch:
        patch.setattr(copies, "_copy_file", slow)
        with pytest.raises(ConfigError, match="put there by somebody else"):
            mine(digits_run.folder, data(photos), out, copy_to=chosen, top=3, overwrite=True)
    with pytest.raises(ConfigError, match="holds files already"):
        mine(digits_run.folder, data(photos), out, copy_to=chosen, top=3, overwrite=True)
    assert (chosen / second).read_text() == "precious"
    (chosen / second).unlink()
    with monkeypatch.context() as patch:
        patch.setattr("sdclr.jobs.mine.job.write_page", looked_at)
        with pytest.raises(ConfigError, match="holds files already"):
            mine(digits_run.folder, data(photos), out, copy_to=chosen, top=3, overwrite=True)
    (chosen / "note.txt").unlink()
    mine(digits_run.folder, data(photos), out, copy_to=chosen, top=3, overwrite=True)
    assert len(list(chosen.iterdir())) == 3


def test_the_lock_is_of_the_folder_whatever_it_is_called(
    digits_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with (
        copies.claimed_copies(tmp_path / "link"),
        pytest.raises(RunFolderError, match="in use by another process"),
        copies.claimed_copies(tmp_path / "real"),
    ):
        pytest.fail("both")
    monkeypatch.chdir(tmp_path / "real")
    mine(digits_run.folder, data(photos), tmp_path / "rare", copy_to=".", top=2)
    assert len(os.listdir(tmp_path / "real")) == 2
    with copies.claimed_copies(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()


def test_two_calls_do_not_copy_into_one_folder(
    digits_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, refusals = tmp_path / "chosen", list[str]()

    def meanwhile(files: ImageFiles, position: int, path: Path) -> None:
        if not refusals:
            refusals.append("")
            with pytest.raises(RunFolderError, match="in use by another process") as error:
                mine(digits_run.folder, data(photos), tmp_path / "b", copy_to=chosen, top=3)
            refusals[0] = str(error.value)
        copy(files, position, path)

    copy = copies._copy_file
    monkeypatch.setattr(copies, "_copy_file", meanwhile)
    mine(digits_run.folder, data(photos), tmp_path / "a", copy_to=chosen, top=3)
    assert "--copy-to" in refusals[0]
    assert len(list(chosen.iterdir())) == 3


def test_copies_are_no_images_of_the_folder_that_is_mined(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    for place in (photos / "new", photos / "rare" / "top", photos / "rare"):
        with pytest.raises(ConfigError, match=r"is in .*, whose images are mined"):
            mine(digits_run.folder, data(photos), photos / "rare", copy_to=place)
    mine(digits_run.folder, data(photos), tmp_path / "a", copy_to=photos / ".hidden", top=2)
    run = photos / "runs" / "a"  # left out when the folder is listed
    shutil.copytree(digits_run.folder, run)
    inside = mine(run, data(photos), run / "rare", copy_to=run / "rare" / "top", top=3)
    assert len(list((run / "rare" / "top").iterdir())) == 3
    assert mine(digits_run.folder, data(photos), tmp_path / "other").names == inside.names


def test_copies_go_into_a_folder_of_the_results_and_never_among_them(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rare"
    for place in (out, tmp_path, tmp_path / "x" / ".." / "rare"):
        with pytest.raises(ConfigError, match=r"such as .*top"):
            mine(digits_run.folder, data(photos), out, copy_to=place)
    assert not out.exists(), "before any work"
    mine(digits_run.folder, data(photos), out, copy_to=out / "top", top=3)
    assert len(list((out / "top").iterdir())) == 3
    mine(digits_run.folder, data(photos), out, overwrite=True)


def test_finished_results_and_foreign_folders_are_not_written_over(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    mine(digits_run.folder, data(photos), tmp_path / "rare")
    before = (tmp_path / "rare" / "scores.csv").read_bytes()
    with pytest.raises(ConfigError, match="give --overwrite"):
        mine(digits_run.folder, data(photos), tmp_path / "rare")
    assert (tmp_path / "rare" / "scores.csv").read_bytes() == before
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="was not made by sdclr mine"):
        mine(digits_run.folder, data(photos), foreign)
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_results_are_not_compared_with_what_they_replace(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    mine(digits_run.folder, data(photos), tmp_path / "rare")
    (tmp_path / "link").symlink_to(tmp_path / "rare")
    with pytest.raises(ConfigError, match="is the folder of --out"):
        mine(
            digits_run.folder,
            data(photos),
            tmp_path / "rare",
            against=tmp_path / "link",
            overwrite=True,
        )


def test_damaged_folders_are_named(digits_run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "rare"
    mine(digits_run.folder, data(photos), out)
    features = np.load(out / "features.npy")
    np.save(out / "features.npy", features[:-1])
    with pytest.raises(DataError, match="do not belong together: 59 rows"):
        mine(digits_run.folder, data(photos), tmp_path / "b", against=out)
    (out / "images.tsv.gz").write_bytes(b"nothing")
    advice = rf"Not a gzipped file.*Mine into another folder; --feedback {out}/scores\.csv takes"
    with pytest.raises(DataError, match=advice) as damaged:
        mine(digits_run.folder, data(photos), out, overwrite=True)
    assert "backup" not in str(damaged.value)
    (out / "mine.json").write_text('{"sdclr_mine": 1, "state": "nearly"}')
    with pytest.raises(DataError, match=r"mine\.json is damaged"):
        mine(digits_run.folder, data(photos), tmp_path / "c", against=out)


def test_what_cannot_be_ranked_gets_one_sentence(
    digits_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_photos(tmp_path / "few", {0: 31})
    with pytest.raises(DataError, match="needs at least 32, got 31"):
        mine(digits_run.folder, data(tmp_path / "few"), tmp_path / "a")
    same = tmp_path / "same"
    same.mkdir()
    for number in range(40):
        photo(1, 1).save(same / f"{number}.png")
    with pytest.raises(DataError, match="features of all 40 images are the same"):
        mine(digits_run.folder, data(same), tmp_path / "b")
    blank = tmp_path / "blank"
    blank.mkdir()
    for number in range(40):
        Image.new("RGB", (16, 16), (number, 2 * number, 90)).save(blank / f"{number}.png")
    with pytest.raises(DataError, match="all 40 images are suspected junk"):
        mine(digits_run.folder, data(blank), tmp_path / "c")
    with pytest.raises(ConfigError, match="rarest"):
        mine(digits_run.folder, data(photos), tmp_path / "d", score="rarest")
    with pytest.raises(DataError, match="needs losses, which are not given"):
        mine(digits_run.folder, data(photos), tmp_path / "e", score="loss")
    with pytest.raises(ConfigError, match="give one of them"):
        mine(digits_run.folder, data(photos), tmp_path / "f", like=["0_000.png"], feedback=photos)
    extract = looking.extract_features

    def broken(backbone: Any, images: Any, name: Any) -> torch.Tensor:
        from sdclr.evaluation.features import require_finite

        features = extract(backbone, images, name=name)
        features[2] = torch.nan
        require_finite(features, name)
        return features

    monkeypatch.setattr(looking, "extract_features", broken)
    with pytest.raises(NonFiniteError, match=r"0_002\.png"):
        mine(digits_run.folder, data(photos), tmp_path / "g")


def test_what_is_wrong_with_the_wishes_is_said_before_a_picture_is_looked_at(
    digits_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "extract_features", lambda *_, **__: pytest.fail("looked at"))
    marks = tmp_path / "marks.csv"
    wishes: list[tuple[str, dict[str, Any], str]] = [
        ("path,wanted\n0_000.png,1\n", {"feedback": marks}, "all of them as wanted"),
        ("path,wanted\n0_000.png,\n", {"feedback": marks}, "marks no image"),
        ("path,wanted\nnone.png,1\n", {"feedback": marks}, "that the collection does not have"),
        ("", {"score": "loss"}, "needs losses"),
        ("", {"like": ["none.png"]}, "no such file"),
        ("", {"device": "cuda:99"}, "cuda"),
        ("", {"top": 0}, "1 or more"),
    ]
    for number, (text, options, words) in enumerate(wishes):
        marks.write_text(text)
        with pytest.raises(SdclrError, match=words):
            mine(digits_run.folder, data(photos), tmp_path / f"rare{number}", **options)


def test_a_run_on_other_images_is_said_so(digits_run: Run, photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_photos(other, {5: 40})
    config = recipe("digits_sdclr").with_values(
        {"backbone.width": 4, "views.size": 8, "batch_size": 10, "epochs": 1}
    )
    run = pretrain(config.model_copy(update={"data": data(other)}), tmp_path / "run")
    with pytest.warns(UserWarning, match="was trained on none of these images"):
        mine(run.folder, data(photos), tmp_path / "a")
    mined = mine(run.folder, data(other), tmp_path / "b", as_trained=True)
    assert not [remark for remark in mined.remarks if "trained" in remark]
    make_photos(other, {6: 2})
    mined = mine(run.folder, data(other), tmp_path / "c")
    assert "The backbone was not trained on 2 of 42 images." in mined.remarks


def test_a_score_of_ones_own_ranks(digits_run: Run, photos: Path, tmp_path: Path) -> None:
    with SCORES.temporarily():
        mined = mine(
            digits_run.folder, data(photos), tmp_path / "rare", score="outside_scores:Length"
        )
    assert mined.score_name == "length"
    features = np.load(tmp_path / "rare" / "features.npy").astype(np.float64)
    np.testing.assert_allclose(mined.score, np.linalg.norm(features, axis=1), rtol=1e-5)


def test_boxes_are_images_of_their_own(digits_run: Run, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    lines = [
        f"photos/{path.name},{x},{y},20,20"
        for path in sorted(photos.iterdir())[:20]
        for x, y in ((0, 0), (20, 20))
    ]
    table.write_text("path,x,y,width,height\n" + "\n".join(lines) + "\n")
    mined = mine(
        digits_run.folder,
        data(table, boxes="auto"),
        tmp_path / "rare",
        copy_to=tmp_path / "chosen",
        top=3,
    )
    assert len(mined) == 40
    first = sorted((tmp_path / "chosen").iterdir())[0]
    with Image.open(first) as image:
        assert (image.format, image.size) == ("PNG", (20, 20))


def test_bad_files_are_an_error_or_left_out_with_a_warning(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    content = (photos / "0_003.png").read_bytes()
    (photos / "0_003.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"0_003\.png"):
        mine(digits_run.folder, data(photos), tmp_path / "a")
    with pytest.warns(UserWarning, match="cannot be decoded"):
        mined = mine(digits_run.folder, data(photos, on_error="skip"), tmp_path / "b")
    assert len(mined) == 59
    assert any("left out" in remark for remark in mined.remarks)


def test_the_map_is_named_on_the_page_and_a_wrong_one_is_refused_before_any_work(
    digits_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "rare"

    def mined(**settings: Any) -> MinedImages:
        return mine(digits_run.folder, data(photos), out, overwrite=True, **settings)

    monkeypatch.setattr(maps, "_is_installed", lambda: False)
    with pytest.raises(ConfigError, match=r'pip install "sdclr\[map\]"'):
        mined(map="umap")
    assert not out.exists()
    before = mined()
    assert before.map_words == "the two largest principal components of their features"
    assert "placed by the two largest principal" in (out / "index.html").read_text()
    assert json.loads((out / "mine.json").read_text())["settings"]["map"] == "pca"
    monkeypatch.setattr(maps, "_is_installed", lambda: True)
    monkeypatch.setattr(maps, "_umap", lambda rows: rows[:, :2].float().numpy() * 2)
    np.testing.assert_allclose(mined(map="umap").place, 2 * before.place, rtol=1e-6)
    assert "placed by UMAP of the principal" in (out / "index.html").read_text()


def test_an_approximate_search_is_said_on_the_page_in_mine_json_and_in_the_remarks(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    mined = mine(digits_run.folder, data(photos), tmp_path / "rare", exact_up_to=59)
    [said] = [remark for remark in mined.remarks if "approximately" in remark]
    assert "as 60 images are more than 59: for scores and copies 100.0 %" in said
    assert "20 nearest of 60 random images" in said
    assert "for covering_4" in said
    assert said in (tmp_path / "rare" / "index.html").read_text(encoding="utf-8")
    record = read_state(tmp_path / "rare")
    assert said in record.remarks
    assert record.settings["exact_up_to"] == 59
    assert set(record.approximations) == {"unit", "directions"}
    assert f"{record.approximations['unit']['recall']:.1%}".replace("%", " %") in said
    exact = mine(digits_run.folder, data(photos), tmp_path / "exact", exact_up_to=60)
    assert read_state(tmp_path / "exact").approximations == {}
    assert not any("approximately" in remark for remark in exact.remarks)


def test_a_search_that_misses_many_neighbours_is_warned_of(
    digits_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "DOUBTFUL_RECALL", 1.01)
    with pytest.warns(UserWarning, match="copies and groups may be off. --exact-up-to 60 searches"):
        mine(digits_run.folder, data(photos), tmp_path / "rare", exact_up_to=0)


def test_a_limit_below_0_is_refused_before_any_work(
    digits_run: Run, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--exact-up-to must be 0 or more, got -1"):
        mine(digits_run.folder, data(photos), tmp_path / "rare", exact_up_to=-1)
    assert not (tmp_path / "rare").exists()


def test_a_hundred_frames_of_nothing_leave_copies_folded(digits_run: Run, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    names = make_photos(photos, {0: 20, 1: 20, 2: 10})
    for name in names[:5]:
        shutil.copy(photos / name, photos / f"copy_{name}")
    for number in range(100):
        Image.new("RGB", (48, 48)).save(photos / f"black_{number:03d}.png")
    mined = mine(digits_run.folder, data(photos), tmp_path / "rare")
    stands_for = {mined.names[row]: mined.names[mined.duplicate_of[row]] for row in range(155)}
    for name in names[:5]:
        assert stands_for[f"copy_{name}"] == name
    assert len({stands_for[name] for name in stands_for if name.startswith("black")}) == 1


def test_one_odd_image_among_equal_ones_comes_first(digits_run: Run, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, {1: 1})
    for number in range(39):
        photo(0, 0).save(photos / f"equal_{number:02d}.png")
    mined = mine(digits_run.folder, data(photos), tmp_path / "rare")
    assert mined.names[int(mined.rank.argmin())] == "1_000.png"
