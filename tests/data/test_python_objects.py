"""Images out of Python objects become the same images whatever holds them; what is none is refused with its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdclr.data import DataConfig, build_data
from sdclr.data.collections.given_images import GivenImages
from sdclr.data.given import given
from sdclr.data.sources.python_objects import given_images
from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.stills import whole

RNG = np.random.default_rng(0)
ARRAYS = RNG.integers(0, 256, (6, 10, 8, 3)).astype(np.uint8)
LABELS = [0, 1, 1, 0, 2, 1]


class Pairs(torch.utils.data.Dataset[Any]):
    """As torchvision's data sets are: pairs, with classes beside them."""

    classes = ("ant", "bee", "cat")

    def __len__(self) -> int:
        return len(ARRAYS)

    def __getitem__(self, place: int) -> tuple[Image.Image, int]:
        return Image.fromarray(ARRAYS[place]), LABELS[place]


class Columns:
    """As a dataset of Hugging Face answers."""

    column_names = ("image", "label")

    def __len__(self) -> int:
        return len(ARRAYS)

    def __getitem__(self, key: int | str) -> Any:
        if key == "label":
            return LABELS
        assert isinstance(key, int)
        return {"image": Image.fromarray(ARRAYS[key]), "label": LABELS[key]}


class Table:
    """As a table of pandas answers."""

    iloc = None

    def __init__(self, **columns: list[Any]) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> list[Any]:
        return self._columns[name]


def files(folder: Path) -> list[str]:
    paths = [folder / f"{place}.png" for place in range(len(ARRAYS))]
    for path, array in zip(paths, ARRAYS, strict=True):
        Image.fromarray(array).save(path)
    return list(map(str, paths))


def held(kind: str, folder: Path) -> Any:
    images = [Image.fromarray(array) for array in ARRAYS]
    tensor = torch.from_numpy(ARRAYS).permute(0, 3, 1, 2)
    return {
        "PIL": lambda: images,
        "arrays": lambda: list(ARRAYS),
        "one array": lambda: ARRAYS,
        "one tensor": lambda: tensor,
        "floats": lambda: [one.float() / 255 for one in tensor],
        "paths": lambda: files(folder),
        "Path": lambda: tuple(map(Path, files(folder))),
        "pairs": lambda: list(zip(images, LABELS, strict=True)),
        "dataset": Pairs,
        "columns": Columns,
        "table": lambda: Table(Path=files(folder), label=LABELS),
    }[kind]()


KINDS = [
    "PIL",
    "arrays",
    "one array",
    "one tensor",
    "floats",
    "paths",
    "Path",
    "pairs",
    "dataset",
    "columns",
    "table",
]
LABELLED = ("pairs", "dataset", "columns", "table")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_images_come_out_of_everything_that_holds_them(kind: str, tmp_path: Path) -> None:
    found = given_images(held(kind, tmp_path))
    train = found.train
    assert isinstance(train, GivenImages)
    for place, expected in enumerate(ARRAYS):
        np.testing.assert_array_equal(whole(train.picture(place)), expected)
    assert train.sizes.tolist() == [[10, 8]] * 6
    same = given_images(list(ARRAYS), LABELS if kind in LABELLED else None).train
    assert b"".join(train.content()) == b"".join(same.content())
    assert (train.labels is None) == (kind not in LABELLED)
    if train.labels is not None:
        assert train.labels.tolist() == LABELS
    assert found.class_names == (
        list(Pairs.classes)
        if kind == "dataset"
        else []
        if train.labels is None
        else ["0", "1", "2"]
    )


def test_words_become_classes_and_a_selection_keeps_names_labels_and_pixels(tmp_path: Path) -> None:
    found = given_images(files(tmp_path), ["b", "a", "a", "b", "c", "a"])
    assert found.class_names == ["a", "b", "c"]
    some = found.train.at(np.array([4, 1]))
    assert some.labels is not None
    assert some.labels.tolist() == [2, 0]
    assert [Path(name).name for name in some.names] == ["4.png", "1.png"]
    np.testing.assert_array_equal(np.asarray(some.picture(0).image), ARRAYS[4])
    (stills,) = some.stills(8)
    assert stills.shape == (2, 3, 8, 8)


def test_other_pixels_are_other_data() -> None:
    changed = ARRAYS.copy()
    changed[3, 0, 0, 0] ^= 1
    contents = [b"".join(given_images(list(one)).train.content()) for one in (ARRAYS, changed)]
    assert contents[0] != contents[1]


def test_an_image_that_comes_out_of_another_size_later_is_an_error() -> None:
    class Random(Pairs):
        calls = 0

        def __getitem__(self, place: int) -> tuple[Image.Image, int]:
            Random.calls += 1
            side = 8 if Random.calls <= len(ARRAYS) else 9
            return Image.fromarray(ARRAYS[place][:side, :side]), LABELS[place]

    train = given_images(Random()).train
    assert isinstance(train, GivenImages)
    with pytest.raises(
        DataError, match=r"image 2 has changed its size .* without random transforms"
    ):
        train.picture(2)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        ("./photos", None, r"is a path: a folder, list or table of files is data\.path"),
        (iter([1]), None, "must have a length and be indexed by number, got list_iterator"),
        (
            [None, None],
            None,
            "2 of 2 images cannot be used; the first is image 0: a NoneType is not an image",
        ),
        (
            [ARRAYS[0], ARRAYS[1].astype(np.int64)],
            None,
            "image 1: it has numbers of int64, which have no agreed range",
        ),
        ([np.zeros((4, 4, 17), np.uint8)], None, r"has the shape \[4, 4, 17\].*data\.channels=3"),
        ([np.full((4, 4, 3), -1.5)], None, r"lie in \[0, 1\], got -1.5 to -1.5. .* normalisation"),
        (np.zeros((5, 4)), None, "one array of images has 3 or 4 dimensions"),
        (list(ARRAYS), [0, 1], "there are 2 labels for 6 images"),
        (list(ARRAYS), [0, "a", 1, 1, 1, 1], "numbers from 0 on or words"),
        (list(ARRAYS), [-1, 0, 0, 0, 0, 0], "got -1"),
        (Table(name=["x"]), None, "needs a column path or .* it has name"),
    ],
)
def test_what_is_no_image_and_no_label_is_refused(images: Any, labels: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        given_images(images, labels)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16"])
def test_images_of_every_mode_are_seen_as_files_of_them_are(mode: str, tmp_path: Path) -> None:
    """And none is turned, whatever its EXIF tag says."""
    if mode == "I;16":
        image = Image.fromarray(ARRAYS[0, :, :, 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(ARRAYS[0]).convert(mode)
    image.getexif()[0x0112] = 6
    image.save(tmp_path / "a.png", exif=image.getexif())
    found = given_images([image, Image.open(tmp_path / "a.png"), tmp_path / "a.png"]).train
    assert isinstance(found, GivenImages)
    assert found.sizes.tolist() == [[10, 8]] * 3
    assert len(set(found.digests)) == 1
    with pytest.raises(DataError, match="image 0: it is 32-bit grey"):
        given_images([image.convert("F")])


def test_a_path_without_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"1 of 1 .*absent\.png"):
        given_images([tmp_path / "absent.png"])


@pytest.mark.tools
def test_a_dataset_of_hugging_face_brings_its_images_labels_and_names_of_classes() -> None:
    datasets = pytest.importorskip("datasets")
    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)) for _ in range(6)
    ]
    labels = [place % 2 for place in range(6)]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    theirs = datasets.Dataset.from_dict(
        {"image": pictures, "label": labels}, features=datasets.Features(features)
    )
    found, same = given_images(theirs), given_images(pictures, labels)
    assert found.class_names == ["cat", "dog"]
    assert found.train.labels is not None
    assert found.train.labels.tolist() == labels
    assert [*found.train.content()] == [*same.train.content()]
    stills = [torch.cat(list(one.train.stills(12))) for one in (found, same)]
    assert torch.equal(*stills)


class Rows(Sequence[Any]):
    """A dataset of whatever is given."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        return self.rows[place]


@pytest.mark.parametrize(
    "beside",
    [
        lambda image, label: (image, label),
        lambda image, label: (image, torch.tensor(label)),
        lambda image, label: (image, np.array([label])),
        lambda image, label: {"image": image, "label": label},
        lambda image, label: {"image": image, "Class": torch.tensor(label)},
    ],
)
def test_labels_are_found_beside_images(beside: Callable[[Any, int], Any]) -> None:
    wanted = [place % 3 for place in range(6)]
    rows = [beside(image, label) for image, label in zip(ARRAYS, wanted, strict=False)]
    found = given_images(Rows(rows))
    assert found.train.labels is not None
    assert found.train.labels.tolist() == wanted[: len(rows)]


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([0, 1, None, 1], r"1 of 4 images have no label \(the first is image 2\)"),
        ([0.5, 1.0, 2.0, 3.0], r"not a class \(float\)"),
        ([{"boxes": []}] * 4, r"not a class \(dict\)"),
        ([0, 1, -1, 1], r"1 of 4 images have no label \(the first is image 2\)"),
        ([0, "a", 1, "b"], "some have a number beside them and others a word"),
        ([0, 1, -2, 1], r"not a class \(-2\)"),
        ([0, 1, 2**70, 1], r"not a class \(1180591620717411303424\)"),
    ],
)
def test_what_stands_beside_images_and_is_no_class_is_left_out_with_a_warning(
    labels: list[Any], why: str
) -> None:
    with pytest.warns(UserWarning, match=f"taken without labels: .*{why}"):
        found = given_images(list(zip(ARRAYS[:4], labels, strict=True)))
    assert found.train.labels is None


def test_labels_of_a_set_that_has_none_are_none() -> None:
    for row in (
        lambda image: {"image": image, "label": -1},
        lambda image: (image, torch.tensor(-1)),
    ):
        found = given_images([row(image) for image in ARRAYS[:4]])
        assert found.train.labels is None


def test_labels_that_are_no_numbers_of_classes_are_refused() -> None:
    with pytest.raises(DataError, match=r"an array of shape \[2\].*argmax"):
        given_images(list(ARRAYS[:4]), np.eye(2)[[0, 1, 0, 1]])
    with pytest.raises(DataError, match="labels are numbers from 0 on or words, got -1"):
        given_images(list(ARRAYS[:4]), [0, 1, -1, 0])
    found = given_images(list(ARRAYS[:4]), [0, 10**12, 7, 7])
    assert found.class_names == ["0", "7", "1000000000000"]


def test_classes_of_which_nothing_is_given_are_left_out() -> None:
    class Named(list[Any]):
        classes = ("ant", "bee", "cat", "dog")

    images = Named(zip(ARRAYS[:4], [2, 0, 2, 0], strict=True))
    with given(images):
        data = build_data(DataConfig(name="given"))
    assert data.class_names == ["ant", "cat"]
    assert data.train.labels is not None
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    assert "2 of 4 classes have no image: bee, dog" in data.remarks[-1]


def test_nothing_is_given_without_an_error_of_ours() -> None:
    with given([], []), pytest.raises(ConfigError, match="labels must be a"):
        build_data(DataConfig(name="given", subset="all"))


class Column:
    """As a column of a shuffled pandas table answers: by its labels, and in its order where it is gone through."""

    iloc = None

    def __init__(self, values: list[Any], labels: list[int]) -> None:
        self._values, self._labels = values, labels

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Any:
        return iter(self._values)

    def __getitem__(self, label: int) -> Any:
        return self._values[self._labels.index(label)]


def test_a_shuffled_column_is_taken_in_its_order() -> None:
    order = [4, 2, 0, 5, 1, 3]
    shuffled = Column([ARRAYS[place] for place in order], order)
    found = given_images(shuffled, Column([LABELS[place] for place in order], order))  # type: ignore[arg-type]
    for place, source in enumerate(order):
        assert np.array_equal(whole(found.train.picture(place)), ARRAYS[source])
    assert found.train.labels is not None
    assert found.train.labels.tolist() == [LABELS[place] for place in order]


class Transformed(Pairs):
    """As torchvision's with a target_transform: what it returns is not what it holds."""

    targets = LABELS

    def __getitem__(self, place: int) -> tuple[Image.Image, int]:
        image, label = super().__getitem__(place)
        return image, label // 2


def test_what_a_dataset_returns_counts_before_its_targets() -> None:
    with pytest.warns(UserWarning, match=r"are not those of images\.targets: the former are used"):
        found = given_images(Transformed())
    assert found.train.labels is not None
    assert found.train.labels.tolist() == [label // 2 for label in LABELS]
    assert found.class_names == ["0", "1"], "the names were those of the targets"
    plain = type("Plain", (Pairs,), {"targets": torch.tensor(LABELS)})
    assert given_images(plain()).class_names == ["ant", "bee", "cat"]


class Boxes(Pairs):
    """As for detection: what stands beside an image is no class, and neither are the targets."""

    targets = [{"boxes": []}] * 6

    def __getitem__(self, place: int) -> Any:
        return Image.fromarray(ARRAYS[place]), {"boxes": []}


def test_targets_that_are_no_classes_leave_the_images_unlabelled() -> None:
    with pytest.warns(UserWarning, match="taken without labels"):
        assert given_images(Boxes()).train.labels is None


def test_an_array_of_paths_is_a_list_of_them(tmp_path: Path) -> None:
    for place, array in enumerate(ARRAYS):
        Image.fromarray(array).save(tmp_path / f"{place}.png")
    paths = np.array([str(path) for path in sorted(tmp_path.iterdir())])
    assert given_images(paths).train.names == tuple(paths)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (list(ARRAYS), dict(enumerate(LABELS)), "one for each image, got a dict"),
        (list(ARRAYS), set(LABELS), "one for each image, got a set"),
        (
            [ARRAYS[0], ARRAYS[1][:0]],
            None,
            r"the first is image 1: it has no pixels: its size is 8 x 0",
        ),
        (ARRAYS[0], None, r"images is one image, \[10, 8, 3\]"),
        (ARRAYS / 254.0, None, r"got 0 to 1\.00394"),
    ],
)
def test_what_would_be_read_otherwise_than_meant_is_refused(
    images: Any, labels: Any, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        given_images(images, labels)


def test_targets_of_another_kind_and_words_for_the_same_classes_say_nothing() -> None:
    for targets in (torch.zeros(6, 40), np.zeros((6, 40)), [None] * 6, [1, 2]):
        found = given_images(type("Attributes", (Pairs,), {"targets": targets})())
        assert found.train.labels is not None
        assert found.train.labels.tolist() == LABELS

    class Words(Pairs):
        targets = LABELS

        def __getitem__(self, place: int) -> Any:
            image, label = super().__getitem__(place)
            return image, self.classes[label]

    assert given_images(Words()).class_names == ["ant", "bee", "cat"]
