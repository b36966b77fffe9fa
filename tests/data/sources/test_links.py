"""Links out of the root of a collection: refused under every form that they take, and at what price."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from counted_work import file_calls
from image_folder_stand_in import make_folder, write_txt
from imagenet_stand_in import make_imagenet
from sdclr.data import DataConfig, build_data
from sdclr.data.sources import links as module
from sdclr.data.sources.links import LinkCheck
from sdclr.errors import ConfigError, DataError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """root/{1.jpg,sub/2.jpg,.store/3.jpg} beside outside/{x.jpg,sub/y.jpg} and root-2/z.jpg."""
    for name in (
        "root/1.jpg",
        "root/sub/2.jpg",
        "root/.store/3.jpg",
        "outside/x.jpg",
        "outside/sub/y.jpg",
    ):
        touch(tmp_path / name)
    touch(tmp_path / "root-2" / "z.jpg")
    return tmp_path / "root"


def way_out(root: Path, path: str) -> str | None:
    """What a list with this one entry is told; None if nothing."""
    try:
        LinkCheck(root, "inside").refuse_ways_out([path], lambda row: "list.txt, line 7")
    except DataError as error:
        return str(error)
    return None


def link(at: Path, to: str | Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(to)


OUTWARD: dict[str, tuple[dict[str, str], str, str]] = {
    # links to make in root -> the entry, and where it leads
    "a file": ({"a.jpg": "../outside/x.jpg"}, "a.jpg", "outside/x.jpg"),
    "a chain": (
        {"a.jpg": "b.jpg", "b.jpg": "sub/c.jpg", "sub/c.jpg": "../../outside/x.jpg"},
        "a.jpg",
        "outside/x.jpg",
    ),
    "a folder": ({"out": "../outside"}, "out/sub/y.jpg", "outside/sub/y.jpg"),
    "a folder of a folder": (
        {"sub/out": "../../outside/sub"},
        "sub/out/y.jpg",
        "outside/sub/y.jpg",
    ),
    "a file by way of a folder": (
        {"out": "../outside", "a.jpg": "out/x.jpg"},
        "a.jpg",
        "outside/x.jpg",
    ),
    "a neighbour of like name": ({"a.jpg": "../root-2/z.jpg"}, "a.jpg", "root-2/z.jpg"),
    "dots after a link": ({"s": "sub", "a.jpg": "s/../../outside/x.jpg"}, "a.jpg", "outside/x.jpg"),
    "the folder above": ({"up": ".."}, "up/outside/x.jpg", "outside/x.jpg"),
}


@pytest.mark.parametrize("kind", OUTWARD)
def test_every_way_out_is_refused_with_list_line_entry_end_and_cure(root: Path, kind: str) -> None:
    links, entry, end = OUTWARD[kind]
    for at, to in links.items():
        link(root / at, to)
    assert way_out(root, entry) == (
        f"list.txt, line 7: {entry} leads through a link out of {root}, to {root.parent / end}. Put the images "
        "themselves there, or use data.links=anywhere if links may lead out."
    )
    LinkCheck(root, "anywhere").refuse_ways_out([entry], lambda row: "")


INWARD: dict[str, tuple[dict[str, str], str]] = {
    "no link": ({}, "sub/2.jpg"),
    "a file": ({"a.jpg": "sub/2.jpg"}, "a.jpg"),
    "a file, by its whole name": ({"a.jpg": "ROOT/sub/2.jpg"}, "a.jpg"),
    "a folder": ({"in": "sub"}, "in/2.jpg"),
    "a hidden folder": ({"in": ".store"}, "in/3.jpg"),
    "out and in again": ({"a.jpg": "../root/1.jpg"}, "a.jpg"),
    "through the root's other name": ({"a.jpg": "../other/1.jpg"}, "a.jpg"),
    "absent": ({}, "sub/absent.jpg"),
    "in an absent folder": ({}, "absent/absent.jpg"),
    "below a file": ({}, "1.jpg/absent.jpg"),
    "a broken link": ({"a.jpg": "nowhere.jpg"}, "a.jpg"),
    "a broken link out": ({"a.jpg": "../outside/nowhere.jpg"}, "a.jpg"),
    "a link to itself": ({"a.jpg": "a.jpg"}, "a.jpg"),
    "a loop of folders": ({"sub/loop": ".."}, "sub/loop/sub/loop/1.jpg"),
    "links in a circle": ({"a": "b", "b": "a"}, "a/1.jpg"),
    "longer than a path can be": ({}, "x/" * 3000 + "1.jpg"),
    "longer than a name can be": ({}, "x" * 300 + "/1.jpg"),
}


@pytest.mark.parametrize("kind", INWARD)
def test_what_stays_inside_or_leads_nowhere_is_let_pass(root: Path, kind: str) -> None:
    links, entry = INWARD[kind]
    (root.parent / "other").symlink_to(root)
    for at, to in links.items():
        link(root / at, to.replace("ROOT", str(root)))
    for name in (root, root.parent / "other"):  # the root itself may be a link
        assert way_out(name, entry) is None


def test_a_long_chain_of_links_ends(root: Path) -> None:
    """Longer than the system follows, and than Python may recurse: broken, for whoever reads it."""
    for number in range(1100):
        link(root / f"chain-{number}.jpg", f"chain-{number + 1}.jpg")
    link(root / "chain-1100.jpg", "../outside/x.jpg")
    assert way_out(root, "chain-0.jpg") is None
    assert way_out(root, "chain-1090.jpg") is not None


def test_a_root_that_is_the_whole_disk_has_no_outside(root: Path) -> None:
    link(root / "a.jpg", "../outside/x.jpg")
    assert way_out(Path("/"), str(root / "a.jpg")[1:]) is None


def test_the_first_in_the_order_of_the_list_is_shown_and_the_others_are_counted(root: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        link(root / name, "../outside/x.jpg")
    with pytest.raises(
        DataError, match=r"^line 1: b\.jpg leads .*x\.jpg \(2 more links do so\)\. Put"
    ):
        LinkCheck(root, "inside").refuse_ways_out(
            ["1.jpg", "b.jpg", "c.jpg", "a.jpg"], lambda row: f"line {row}"
        )


@pytest.mark.skipif(os.getuid() == 0, reason="root may list everything")
def test_a_folder_that_may_be_passed_but_not_listed_hides_no_way_out(root: Path) -> None:
    link(root / "sub" / "a.jpg", "../../outside/x.jpg")
    (root / "sub").chmod(0o100)
    assert way_out(root, "sub/2.jpg") is None
    assert way_out(root, "sub/a.jpg") is not None
    (root / "sub").chmod(0o700)


def test_a_folder_that_cannot_be_listed_hides_no_way_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link(root / "sub" / "a.jpg", "../../outside/x.jpg")

    def refuse(where: str) -> None:
        raise PermissionError

    monkeypatch.setattr(module.os, "scandir", refuse)
    assert way_out(root, "sub/2.jpg") is None
    assert way_out(root, "sub/a.jpg") is not None


# ---- its price


def calls_of(monkeypatch: pytest.MonkeyPatch, *names: str) -> dict[str, int]:
    """Counts calls of functions of os from now on."""
    count = dict.fromkeys(names, 0)

    def counted(name: str, call: Callable) -> Callable:
        def counting(*arguments: object, **keywords: object) -> object:
            count[name] += 1
            return call(*arguments, **keywords)

        return counting

    for name in names:
        monkeypatch.setattr(module.os, name, counted(name, getattr(os, name)))
    return count


def test_files_of_folders_without_links_are_not_looked_at(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [f"{number % 10}/{number}.jpg" for number in range(1000)]
    for path in paths:
        touch(root / path)
    depth = len(root.parts)
    count = calls_of(monkeypatch, "stat", "lstat", "readlink", "scandir")
    LinkCheck(root, "inside").refuse_ways_out(paths, lambda row: "")
    assert count["scandir"] == count["stat"] == 10, "one of each for a folder"
    assert count["lstat"] <= 11 * (depth + 1)
    assert count["readlink"] == 0


def test_many_links_into_one_folder_resolve_it_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        touch(root / "pool" / f"{number}.jpg")
        link(root / "class" / f"{number}.jpg", f"../pool/{number}.jpg")
    count = calls_of(monkeypatch, "stat", "lstat", "readlink")
    LinkCheck(root, "inside").refuse_ways_out(
        [f"class/{number}.jpg" for number in range(300)], lambda row: ""
    )
    assert count["stat"] == 2
    assert count["readlink"] == 300
    assert count["lstat"] < 650, "its own, and that of its end"


# ---- every collection on disk, and its setting


def config(path: Path, **values: object) -> DataConfig:
    return DataConfig.parse({"name": "images", "path": str(path), "subset": "all"} | values)


def test_lists_tables_and_folders_have_one_rule(tmp_path: Path) -> None:
    own, elsewhere = tmp_path / "own", tmp_path / "elsewhere"
    paths = make_folder(own)
    make_folder(elsewhere, {"emu": 2})
    (own / "emu").symlink_to(elsewhere / "emu")
    paths += ["emu/0.jpg", "emu/1.jpg"]
    listed = write_txt(own / "list.txt", sorted(paths))
    table = own / "table.csv"
    table.write_text("".join(["path\n", *(f"{path}\n" for path in sorted(paths))]))
    out = f"leads through a link out of {own}, to {elsewhere}/emu"
    for source, first in ((own, f"{own}/emu/ {out}"), (listed, f"line 11: emu/0.jpg {out}/0.jpg")):
        with pytest.raises(DataError, match=f"{first}.*data.links=anywhere"):
            build_data(config(source))
    with pytest.raises(
        DataError, match=f"{table}, line 12: emu/0.jpg {out}/0.jpg .1 more links do so"
    ):
        build_data(config(table))
    found = [build_data(config(source, links="anywhere")) for source in (own, listed, table)]
    assert {len(data.train) for data in found} == {14}
    assert len({data.fingerprint for data in found}) == 1


def test_the_root_of_a_list_is_the_fence_not_the_place_of_the_list(tmp_path: Path) -> None:
    make_folder(tmp_path / "images")
    listed = write_txt(tmp_path / "list.txt", ["cat/0.jpg"])
    assert len(build_data(config(listed, root=str(tmp_path / "images"))).train) == 1
    (tmp_path / "rooted").mkdir()
    (tmp_path / "rooted" / "cat").symlink_to(tmp_path / "images" / "cat")
    with pytest.raises(
        DataError, match=f"line 1: cat/0.jpg leads through a link out of {tmp_path}/rooted"
    ):
        build_data(config(listed, root=str(tmp_path / "rooted")))
    (tmp_path / "linked").symlink_to("images")
    assert len(build_data(config(listed, root=str(tmp_path / "linked"))).train) == 1


def test_a_test_set_has_the_rule_of_training(tmp_path: Path) -> None:
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "elsewhere", seed=1)
    (tmp_path / "test").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "test" / name).symlink_to(tmp_path / "elsewhere" / name)
    values = {"labels": "folders", "test_path": str(tmp_path / "test")}
    with pytest.raises(
        DataError, match=f"{tmp_path}/test/cat/ leads through a link out of {tmp_path}/test"
    ):
        build_data(config(tmp_path / "train", **values))
    assert (
        len(build_data(config(tmp_path / "train", links="anywhere", **values)).part("test")) == 10
    )


@pytest.mark.parametrize("with_training_list", [True, False])
def test_the_lists_of_imagenet_have_the_rule_too(tmp_path: Path, with_training_list: bool) -> None:
    stand_in = make_imagenet(tmp_path, 3, with_training_list=with_training_list)
    values = {"path": str(stand_in.root), "splits_dir": str(stand_in.splits_dir)}
    before = build_data(DataConfig.parse({"name": "imagenet100"} | values))
    path = stand_in.lists["test"][4].split()[0]
    (stand_in.root / path).rename(tmp_path / "moved.JPEG")
    (stand_in.root / path).symlink_to(tmp_path / "moved.JPEG")
    with pytest.raises(
        DataError, match=f"{stand_in.list_path('test')}, line 5: {path} leads .* to .*/moved.JPEG"
    ):
        build_data(DataConfig.parse({"name": "imagenet100"} | values))
    after = build_data(DataConfig.parse({"name": "imagenet100", "links": "anywhere"} | values))
    assert after.fingerprint == before.fingerprint


def test_derived_training_images_have_the_rule_without_a_line(tmp_path: Path) -> None:
    stand_in = make_imagenet(tmp_path, 3)
    values = {"path": str(stand_in.root), "splits_dir": str(stand_in.splits_dir)}
    image = touch(tmp_path / "extra.JPEG")
    (stand_in.root / "train" / "n90000000" / "extra.JPEG").symlink_to(image)
    message = f"the class folders of {stand_in.root}: train/n90000000/extra.JPEG leads through a link out of"
    with pytest.raises(DataError, match=message):
        build_data(DataConfig.parse({"name": "imagenet100"} | values))


def test_the_setting_is_for_images_on_disk_and_decides_no_result() -> None:
    with pytest.raises(
        ConfigError,
        match=r"links=anywhere is for images on disk, and digits has no links\. Leave it",
    ):
        DataConfig.parse({"name": "digits", "links": "anywhere"})
    with pytest.raises(ConfigError, match="links must be 'inside' or 'anywhere', got 'nowhere'"):
        DataConfig.parse({"name": "images", "links": "nowhere"})
    assert "links" in DataConfig.incidental()


def test_the_file_system_is_asked_about_folders_and_not_about_every_image(tmp_path: Path) -> None:
    asked = []
    for number_of_images in (10, 200):
        root = tmp_path / str(number_of_images)
        paths = [f"{number % 5}/{number}.jpg" for number in range(number_of_images)]
        for path in paths:
            touch(root / path)
        link_check = LinkCheck(root, "inside")
        asked.append(
            file_calls(
                lambda check=link_check, paths=paths: check.refuse_ways_out(paths, lambda row: "")
            )
        )  # type: ignore[misc]
    assert 5 <= asked[0] == asked[1]
