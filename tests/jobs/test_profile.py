"""sdclr profile: what is known of a mined collection, and the questions that narrow it."""

from __future__ import annotations

import csv
import functools
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from outside_backbone import TinyNet
from photo_folder import make_photos
from sdclr import cli, mine, pretrain, profile, recipe, register_backbone
from sdclr.backbones.table import BACKBONES
from sdclr.data import DataConfig
from sdclr.errors import DataError, MissingInputError
from sdclr.evaluation.rarity import modes
from sdclr.presentation.progress import NoProgress


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("profile")
    config = recipe("digits_simclr").with_overrides(
        ["epochs=1", "views.size=8", "backbone.width=2", "batch_size=400"]
    )
    run = pretrain(config, root / "run")
    make_photos(root / "photos", {0: 30, 1: 17, 2: 10, 3: 3})
    data = DataConfig(name="images", path=str(root / "photos"), subset="all")
    mine(run.folder, data, root / "rare")
    return root / "rare"


def fresh(mined: Path) -> Path:
    for name in ("questions.csv", "profile.json", "profile.html"):
        (mined / name).unlink(missing_ok=True)
    return mined


def pairs_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "questions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_answers(path: Path, pairs: list[dict[str, str]], same: str | None = None) -> Path:
    """Answers by the first letter of the file name, the digit; or ``same`` for all."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["a", "b", "kind", "same", "collection"])
        writer.writeheader()
        for pair in pairs:
            alike = "yes" if pair["a"][0] == pair["b"][0] else "no"
            writer.writerow({**pair, "same": same or alike})
    return path


def test_the_profile_is_written_as_numbers_page_and_questions(mined: Path) -> None:
    found = profile(fresh(mined))
    assert found.num_images == 60
    assert sum(found.sizes) == 60
    written = json.loads((mined / "profile.json").read_text())
    assert written["num_images"] == 60
    assert written["modes"]["low"] == found.modes.low
    assert len(pairs_of(mined)) >= 45
    page = (mined / "profile.html").read_text()
    assert found.largest[0] in page
    assert page.count("data:image/jpeg") >= 1
    assert f"{found.gini:.2f}" in page


def test_an_approximate_search_is_printed_and_recorded(
    mined: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[str] = []

    class Printed(NoProgress):
        def print(self, text: str) -> None:
            printed.append(text)

    profile(fresh(mined), progress=Printed())
    assert "approximation" not in json.loads((mined / "profile.json").read_text())
    assert printed == []
    monkeypatch.setattr(modes, "Evidence", functools.partial(modes.Evidence, exact_up_to=59))
    profile(fresh(mined), progress=Printed())
    recall = json.loads((mined / "profile.json").read_text())["approximation"]["recall"]
    assert 0.5 < recall <= 1
    assert len(printed) == 1
    assert f"searched approximately: {recall:.1%}".replace("%", " %") in printed[0]


def test_answers_in_the_file_are_kept_and_count(mined: Path, tmp_path: Path) -> None:
    profile(fresh(mined))
    given = write_answers(tmp_path / "given.csv", pairs_of(mined)[:30])
    found = profile(mined, answers=given)
    assert found.num_answers == 30
    assert found.effective_modes is not None
    again = profile(mined)
    assert again == found, "they are in questions.csv now"
    assert sum(pair["same"] != "" for pair in pairs_of(mined)) == 30


def test_a_spreadsheet_may_sort_the_rows_and_write_semicolons(mined: Path, tmp_path: Path) -> None:
    expected = profile(fresh(mined))
    before = (mined / "scores.csv").read_text()
    header, *lines = before.splitlines()
    saved = [header, *sorted(lines, reverse=True)]
    try:
        (mined / "scores.csv").write_text("\n".join(saved).replace(",", ";") + "\n")
        assert profile(mined) == expected
        (mined / "scores.csv").write_text("\n".join(saved[:-1]) + "\n")
        with pytest.raises(DataError, match="no row for 1 images"):
            profile(mined)
    finally:
        (mined / "scores.csv").write_text(before)
    given = write_answers(tmp_path / "given.csv", pairs_of(mined)[:20])
    given.write_text(given.read_text().replace(",", ";"))
    assert profile(mined, answers=given).num_answers == 20


def test_every_answer_on_the_terminal_is_kept_at_once(mined: Path) -> None:
    fresh(mined)
    runner = CliRunner()
    stopped = runner.invoke(
        cli.app, ["profile", str(mined), "--ask", "50"], input="y\nmaybe\nn\nq\n"
    )
    assert stopped.exit_code == 0, stopped.output
    assert [pair["same"] for pair in pairs_of(mined)][:3] == ["yes", "no", ""]
    assert "same kind?" in stopped.output
    more = runner.invoke(cli.app, ["profile", str(mined), "--ask", "1"], input="n\n")
    assert [pair["same"] for pair in pairs_of(mined)][:4] == ["yes", "no", "no", ""], more.output


@pytest.mark.journeys
def test_so_many_pairs_are_asked_about_as_were_wanted(mined: Path) -> None:
    found = CliRunner().invoke(
        cli.app, ["profile", str(fresh(mined)), "--ask", "120"], input="y\nn\n" * 60
    )
    assert found.exit_code == 0, found.output
    pairs = pairs_of(mined)
    assert sum(pair["same"] != "" for pair in pairs) == 120
    assert len({frozenset((pair["a"], pair["b"])) for pair in pairs}) == len(pairs), "none twice"
    (mined / "questions.csv").write_text("a,b,kind,same\n")
    profile(mined)
    assert len(pairs_of(mined)) == 50, "a file without questions gets some"
    with pytest.warns(UserWarning, match="pairs of images are left to ask about, not 3000"):
        profile(mined, ask=lambda a, b: None, num_questions=3000)


def test_answers_of_one_kind_bound_the_number_of_kinds(mined: Path, tmp_path: Path) -> None:
    before = profile(fresh(mined))
    assert "By their distances alone it may be" in before.verdict()
    same = profile(mined, answers=write_answers(tmp_path / "s.csv", pairs_of(mined)[:20], "yes"))
    assert (same.radius_by, same.modes.low) == ("all same", 1)
    assert "All 20 answers say same, so there are at most" in same.verdict()
    assert f"sdclr profile {mined} --ask 50" in same.verdict()
    profile(fresh(mined))
    other = write_answers(tmp_path / "d.csv", pairs_of(mined)[:20], "no")
    different = profile(mined, answers=other)
    assert different.radius_by == "all different"
    assert different.modes.low >= before.modes.low
    assert "at least" in different.verdict()


def test_answers_about_an_earlier_collection_are_none_on_random_pairs_of_this_one(
    mined: Path,
) -> None:
    profile(fresh(mined))
    profile(mined, answers=write_answers(mined / "given.csv", pairs_of(mined)[:40]))
    text = (mined / "questions.csv").read_text()
    mark = pairs_of(mined)[0]["collection"]
    (mined / "questions.csv").write_text(text.replace(f",{mark}", ",0123abcd"))
    found = profile(mined)
    assert found.num_answers == 40, "they still say when two images are alike"
    assert found.effective_modes is None, "and not how often two random images are"
    pairs = pairs_of(mined)
    assert [pair["kind"] for pair in pairs].count("random") >= 4
    assert all(pair["same"] == "" for pair in pairs if pair["kind"] == "random")
    before = [line.rpartition(",")[0] for line in text.splitlines()]
    (mined / "questions.csv").write_text("\n".join(before))  # of an earlier version
    assert profile(mined).effective_modes is not None
    record = (mined / "profile.json").read_text().replace('"num_images": 60', '"num_images": 70')
    (mined / "profile.json").write_text(record)
    (mined / "questions.csv").write_text("\n".join(before))
    assert profile(mined).effective_modes is None, "drawn from another collection"
    lost = text.replace(pairs[0]["a"], "gone.png")
    (mined / "questions.csv").write_text(lost)
    with pytest.warns(
        UserWarning, match=r"answers? in .*questions\.csv (is|are) about images that are"
    ):
        assert profile(mined).num_answers < 40


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("A", "B", "yes"), ("B", "A", "no")], "line 3: .* are called the same and different"),
        ([("A", "A", "yes")], "line 2: .* is compared with itself"),
    ],
)
def test_answers_that_contradict_each_other_are_named(
    mined: Path, tmp_path: Path, rows: list[tuple[str, str, str]], words: str
) -> None:
    profile(fresh(mined))
    names = {"A": pairs_of(mined)[0]["a"], "B": pairs_of(mined)[0]["b"]}
    lines = [f"{names[a]},{names[b]},{same}" for a, b, same in rows]
    (tmp_path / "x.csv").write_text("\n".join(["a,b,same", *lines]))
    with pytest.raises(DataError, match=words):
        profile(mined, answers=tmp_path / "x.csv")


def test_an_empty_row_takes_no_answer_away(mined: Path, tmp_path: Path) -> None:
    profile(fresh(mined))
    a, b = (pairs_of(mined)[0][side] for side in "ab")
    (tmp_path / "x.csv").write_text(f"a,b,same\n{a},{b},yes\n{b},{a},\n")
    assert profile(mined, answers=tmp_path / "x.csv").num_answers == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [("features.npy", b"\x93NUMPY"), ("mine.json", b"{"), ("mine.json", b"[]")],
)
def test_a_damaged_file_of_the_folder_is_named(mined: Path, name: str, content: bytes) -> None:
    before = (mined / name).read_bytes()
    try:
        (mined / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} .*Mine into another folder"):
            profile(mined)
    finally:
        (mined / name).write_bytes(before)


def test_of_few_images_none_can_be_a_rare_mode(mined: Path) -> None:
    rows = dict(profile(fresh(mined)).rows())
    assert rows["rare modes (below 1 % of the images)"] == "none can be, of 60 images"


def test_it_can_be_read_by_a_script(mined: Path) -> None:
    found = CliRunner().invoke(cli.app, ["profile", str(fresh(mined)), "--json"])
    assert json.loads(found.stdout)["num_images"] == 60


def test_what_cannot_be_is_one_clear_error(mined: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="sdclr mine RUN IMAGES --out"):
        profile(tmp_path)
    profile(fresh(mined))
    pairs = pairs_of(mined)
    with pytest.raises(DataError, match="same must be yes, no, 1, 0 or empty, got perhaps"):
        profile(mined, answers=write_answers(tmp_path / "odd.csv", pairs, "perhaps"))
    with pytest.raises(DataError, match="is not an image of this collection"):
        profile(mined, answers=write_answers(tmp_path / "else.csv", [{**pairs[0], "a": "no.png"}]))
    (tmp_path / "columns.csv").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match="needs the columns a, b and same"):
        profile(mined, answers=tmp_path / "columns.csv")
    with pytest.raises(MissingInputError):
        profile(mined, answers=tmp_path / "absent.csv")


def test_features_of_other_images_are_noticed(mined: Path) -> None:
    features = np.load(mined / "features.npy")
    np.save(mined / "features.npy", features[:-1])
    try:
        with pytest.raises(DataError, match=r"60 images and 59 rows in features\.npy"):
            profile(mined)
    finally:
        np.save(mined / "features.npy", features)


def test_the_folder_of_a_run_is_answered_with_the_commands_that_work(mined: Path) -> None:
    run = mined.parent / "run"
    with pytest.raises(MissingInputError) as caught:
        profile(run)
    assert f"sdclr mine {run}, then sdclr profile {run / 'rare'}." in str(caught.value)


def test_a_run_with_a_backbone_of_the_users_is_profiled_without_its_code(
    mined: Path, tmp_path: Path
) -> None:
    config = recipe("digits_simclr").with_overrides(
        ["backbone.name=tinynet", "backbone.width=64", "epochs=1", "views.size=8", "batch_size=400"]
    )
    data = DataConfig(name="images", path=str(mined.parent / "photos"), subset="all")
    with BACKBONES.temporarily():
        register_backbone(TinyNet)
        run = pretrain(config, tmp_path / "run")
        mine(run.folder, data, run.folder / "rare")
    profile(run.folder / "rare")
    written = json.loads((run.folder / "rare" / "profile.json").read_text())
    assert written["backbone"] == run.backbone_identity()
    run.backbone_path.write_bytes(b"damaged")
    profile(run.folder / "rare")
    written = json.loads((run.folder / "rare" / "profile.json").read_text())
    assert written["backbone"] is None
