"""Boxes in pictures, from tables and from MegaDetector: each is an image of its own, and nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdclr.data import Data, DataConfig, build_data
from sdclr.data.collections.boxes import Boxes, OutsideError
from sdclr.data.collections.contents import read_contents
from sdclr.data.collections.duplicates import duplicates
from sdclr.data.collections.image_store import build_store
from sdclr.data.views.parameters import ViewSpec
from sdclr.errors import ConfigError, DataError

WIDTH, HEIGHT = 20, 10
PIXELS = np.arange(HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of 20 x 10 pixels; b is a as a camera held upright has taken it."""
    (tmp_path / "cam").mkdir()
    Image.fromarray(PIXELS).save(tmp_path / "cam" / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "cam" / "b.png", exif=exif)
    return tmp_path


def table(folder: Path, text: str) -> Path:
    (folder / "t.csv").write_text(text)
    return folder / "t.csv"


def load(path: Path, **values: object) -> Data:
    return build_data(
        DataConfig.parse({"name": "images", "path": str(path), "subset": "all"} | values)
    )


def pixels(data: Data, position: int) -> np.ndarray:
    picture = data.train.picture(position)
    assert picture.size == (data.train.sizes[position, 1], data.train.sizes[position, 0])
    return picture.pixels(0, 0, *picture.size)


@pytest.mark.parametrize(
    ("header", "row", "unit"),
    [
        ("x,y,width,height", "4,2,6,3", "pixels"),
        ("X,Y,W,H", "4,2,6,3", "auto"),
        ("xmin,ymin,xmax,ymax", "4,2,10,5", "pixels"),
        ("left,top,right,bottom", "4,2,10,5", "auto"),
        ("x,y,width,height", "0.2,0.2,0.3,0.3", "fractions"),
        ("x1,y1,x2,y2", "0.2,0.2,0.5,0.5", "auto"),
    ],
)
def test_a_box_is_cut_out_of_its_picture(folder: Path, header: str, row: str, unit: str) -> None:
    data = load(table(folder, f"path,label,{header},camera\ncam/a.png,fox,{row},k1\n"), boxes=unit)
    np.testing.assert_array_equal(pixels(data, 0), PIXELS[2:5, 4:10])
    (name,) = data.train.paths
    assert name.startswith("cam/a.png#")
    assert data.train.columns.keys() == {"camera"}
    assert "is an image; data.boxes=none takes whole pictures" in data.remarks[0]
    assert load(table(folder, f"path,label,{header}\ncam/a.png,fox,{row}\n")).train.paths == (
        "cam/a.png",
    )


def test_boxes_count_in_the_turned_picture(folder: Path) -> None:
    file = table(folder, "path,x,y,width,height\ncam/b.png,0,0,10,20\n")
    np.testing.assert_array_equal(pixels(load(file, boxes="pixels"), 0), np.rot90(PIXELS, -1))
    flat = load(
        table(folder, "path,x,y,width,height\ncam/b.png,0,0,20,10\n"),
        boxes="pixels",
        exif_rotation=False,
    )
    np.testing.assert_array_equal(pixels(flat, 0), PIXELS)


def test_several_boxes_of_a_file_are_several_images_everywhere(folder: Path) -> None:
    rows = ["cam/a.png,0,0,5,5", "cam/a.png,5,5,4,4", "cam/b.png,0,0,5,5"]
    (folder / "cam" / "b.png").write_bytes((folder / "cam" / "a.png").read_bytes())
    data = load(table(folder, "path,x,y,width,height\n" + "\n".join(rows)), boxes="pixels")
    assert data.train.paths == ("cam/a.png#0,0,5,5", "cam/a.png#5,5,4,4", "cam/b.png#0,0,5,5")
    assert duplicates(data.train) == [["cam/a.png#0,0,5,5", "cam/b.png#0,0,5,5"]]
    assert len({one.path for one in read_contents(data.train)}) == 3
    images = data.train.to(torch.device("cpu"))
    store = build_store(data.train, folder / "store")
    views = [
        next(iter(one.views([torch.arange(3)], ViewSpec(size=4), seed=1, epoch=0)))
        for one in (images, store)
    ]
    assert torch.equal(views[0].a, views[1].a)
    part = data.train.at(np.array([1]))
    np.testing.assert_array_equal(part.picture(0).pixels(0, 0, 4, 4), PIXELS[5:9, 5:9])


def test_another_box_or_another_unit_is_another_collection(folder: Path) -> None:
    prints = set()
    for row, unit in (
        ("0,0,1,1", "pixels"),
        ("0,0,1,1", "fractions"),
        ("0,0,2,1", "pixels"),
        ("0,0,1,1", "none"),
    ):
        prints.add(
            load(table(folder, f"path,x,y,width,height\ncam/a.png,{row}\n"), boxes=unit).fingerprint
        )
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0,0,1,1"], "0 and 1 only, which may be pixels or fractions"),
        (
            ["0.5,0.5,1.2,0.3"],
            r"reach 1\.2, which may be pixels, or fractions that leave the picture",
        ),
        (
            ["1,1,12,4", "0.1,0.2,0.3,0.4"],
            r"line 3: .* at most 1, as fractions are, and others .* reach 12",
        ),
    ],
)
def test_a_unit_that_is_not_sure_is_asked_for(folder: Path, rows: list[str], message: str) -> None:
    file = table(folder, "path,x,y,width,height\n" + "\n".join(f"cam/a.png,{row}" for row in rows))
    with pytest.raises(
        ConfigError, match=rf"{message}.*data\.boxes=pixels or data\.boxes=fractions"
    ):
        load(file, boxes="auto")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "18,0,6,5",
            r"a\.png: its box 18,0,6,5 \(x, y, width, height in pixels\) reaches out of .* 20 x 10",
        ),
        ("0,0,0,5", "is empty"),
        ("5,5,-2,3", "is empty"),
        ("-4,0,6,5", "reaches out of"),
    ],
)
def test_a_box_that_is_empty_or_outside_is_a_bad_file(folder: Path, row: str, message: str) -> None:
    file = table(folder, f"path,x,y,width,height\ncam/a.png,1,1,5,5\ncam/a.png,{row}\n")
    images = load(file, boxes="pixels").train
    with pytest.raises(DataError, match=message):
        images.to(torch.device("cpu"))
    with pytest.raises(DataError, match=message):
        images.verified("raise", lambda done: None)
    kept, bad = images.verified("skip", lambda done: None)
    assert (kept.paths, [one.path for one in bad]) == (("cam/a.png#1,1,5,5",), [images.paths[1]])
    np.testing.assert_array_equal(kept.picture(0).pixels(0, 0, 5, 5), PIXELS[1:6, 1:6])


def test_rounding_at_the_edge_is_no_error() -> None:
    boxes = Boxes(
        ("a",) * 3, np.array([[-0.4, 0, 20.6, 10], [0.1, 0, 20, 10], [19.5, 9.5, 20, 10]]), "pixels"
    )
    assert [boxes.pixels(row, 20, 10) for row in range(3)] == [
        (0, 0, 20, 10),
        (0, 0, 20, 10),
        (19, 9, 20, 10),
    ]
    tenth = Boxes(("a",), np.array([[0.1, 0.1, 0.7, 0.3]]), "fractions")
    assert tenth.pixels(0, 1000, 1000) == (100, 100, 700, 300)
    with pytest.raises(OutsideError, match="takes no pixel"):
        Boxes(("a",), np.array([[20.2, 0, 20.8, 5]]), "pixels").pixels(0, 20, 10)


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        (
            "path,x,y,width,height\ncam/a.png,1,1,,5\n",
            {"boxes": "pixels"},
            r"line 2: width .* must be a number, got ''",
        ),
        (
            "path;x;y;width;height\ncam/a.png;1,5;1;2;5\n",
            {"boxes": "pixels"},
            "got '1,5'. Numbers have a point",
        ),
        (
            "path,x,y,width,height\ncam/a.png,nan,1,2,5\n",
            {"boxes": "auto"},
            "must be a number, got 'nan'",
        ),
        (
            "path,x,y\ncam/a.png,1,1\n",
            {"boxes": "pixels"},
            r"no columns of boxes, .* It has path, x, y",
        ),
        (
            "path,x,y,width,height\ncam/a.png,1,1,2,2\ncam/a.png,1,1,2,2\n",
            {"boxes": "pixels"},
            "line 3: the box 1,1,2,2 of 'cam/a.png' is listed already, in line 2",
        ),
        (
            "path,x,y,width,height\ncam/a.png,1,1,2,2\ncam/a.png,3,3,2,2\n",
            {},
            r"listed already, in line 2\. If each row is a box in a picture, use data\.boxes=pixels",
        ),
        (
            "path,x,y,width,height,xmin,ymin,xmax,ymax\ncam/a.png,1,1,2,2,1,1,3,3\n",
            {"boxes": "auto"},
            r"several sets of box columns: \(x, y, width, height\) and \(xmin, ymin, xmax, ymax\)",
        ),
        (
            "path\ncam/a.png\n",
            {"min_confidence": 0.5},
            r"data\.min_confidence is for what MegaDetector writes",
        ),
    ],
)
def test_boxes_that_cannot_be_read_are_refused_by_line(
    folder: Path, text: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises((DataError, ConfigError), match=message):
        load(table(folder, text), **values)


def test_boxes_are_for_tables(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.boxes=pixels is for tables with box columns"):
        load(folder / "cam", boxes="pixels")


# ---- MegaDetector


def detections(folder: Path, **changes: object) -> Path:
    found = [
        {"category": "1", "conf": 0.9, "bbox": [0.0, 0.0, 0.5, 0.25]},
        {"category": "1", "conf": 0.1, "bbox": [0.5, 0.5, 0.2, 0.2]},
        {"category": "2", "conf": 0.8, "bbox": [0.1, 0.1, 0.2, 0.2]},
    ]
    content = {
        "images": [
            {"file": "cam/b.png", "detections": found},
            {"file": "cam/a.png", "detections": []},
            {"file": "cam/c.png", "detections": None, "failure": "Failure image access"},
        ],
        "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"},
        "info": {"detector": "md_v5a"},
    } | changes
    (folder / "md.json").write_text(json.dumps(content))
    return folder / "md.json"


def test_animals_of_megadetector_are_images_in_the_turned_picture(folder: Path) -> None:
    data = load(detections(folder))
    assert data.train.paths == ("cam/b.png#0,0,0.5,0.25",)
    np.testing.assert_array_equal(pixels(data, 0), np.rot90(PIXELS, -1)[:5, :5])
    assert {name: cells.tolist() for name, cells in data.train.columns.items()} == {
        "category": ["animal"],
        "confidence": ["0.9"],
    }
    assert {remark for remark in data.remarks if "left out" in remark} == {
        "detections below data.min_confidence=0.2 left out: 1",
        "detections of other categories than animal left out: 1",
        "pictures without a box left out: 1",
        "pictures that MegaDetector could not read left out: 1",
    }


def test_other_categories_and_confidences_are_taken_when_that_is_said(folder: Path) -> None:
    assert len(load(detections(folder), min_confidence=0.05).train) == 2
    assert load(detections(folder), box_categories="person").train.columns["category"].tolist() == [
        "person"
    ]
    assert len(load(detections(folder), box_categories=["1", "person"]).train) == 2
    labelled = load(
        detections(folder), box_categories=["animal", "person"], label_column="category"
    )
    assert labelled.class_names == ["animal", "person"]


@pytest.mark.parametrize(
    ("changes", "values", "message"),
    [
        (
            {},
            {"box_categories": "fox"},
            r"box_categories=fox: .* It has 1 \(animal\), 2 \(person\), 3 \(vehicle\)",
        ),
        (
            {},
            {"exif_rotation": False},
            r"refer to pictures that were turned .*data\.exif_rotation=true",
        ),
        ({}, {"boxes": "pixels"}, "MegaDetector writes fractions"),
        ({}, {"min_confidence": 0.95}, r"no box to cut out of 3 pictures \(detections below"),
        (
            {"images": [{"file": "cam/a.png", "detections": [{"conf": 1}]}]},
            {},
            "image 1: a detection has a category",
        ),
        ({"images": [{"detections": []}]}, {}, "image 1: an object with a file was expected"),
        (
            {
                "images": [
                    {
                        "file": "../a.png",
                        "detections": [{"category": "1", "conf": 1, "bbox": [0, 0, 1, 1]}],
                    }
                ]
            },
            {},
            "image 1: .*leaves the image folder",
        ),
        ({"detection_categories": []}, {}, "detection_categories must name the categories"),
    ],
)
def test_what_is_wrong_with_a_file_of_megadetector_is_named(
    folder: Path, changes: dict[str, object], values: dict[str, object], message: str
) -> None:
    with pytest.raises((DataError, ConfigError), match=message):
        load(detections(folder, **changes), **values)
