"""The images of a collection that are held out: what they must have, and what they must not share with the others."""

from __future__ import annotations

import os

from sdclr.addresses import Place
from sdclr.data.collections.boxes import written
from sdclr.data.decoding.decode import printable
from sdclr.data.sources.found_images import FoundImages
from sdclr.data.splits import Positions
from sdclr.errors import ConfigError, DataError
from sdclr.safe_text import first_of


def require_one_of_each(
    path: Place,
    test: FoundImages | None,
    validation: Positions | None,
    test_path: Place | None,
    validation_is_drawn: bool,
) -> None:
    """ConfigError where a folder brings validation or test images and the settings ask for others."""
    if validation is not None and validation_is_drawn:
        raise ConfigError(
            f"data.validation_per_class holds out training images, and {printable(path)} has a folder of "
            "validation images. Leave it out, or use data.layout=flat."
        )
    if test is not None and test_path is not None:
        raise ConfigError(
            f"{printable(path)} has a folder of test images, and data.test_path={printable(test_path)} is another "
            "test set. Give one of them (data.exclude leaves a folder out)."
        )


def labels_of_training(labels: list[str] | None, validation: Positions | None) -> list[str] | None:
    """The labels of the images that are trained on."""
    if labels is None or validation is None:
        return labels
    held_out = set(validation.tolist())
    return [label for row, label in enumerate(labels) if row not in held_out]


def check_test(
    test: FoundImages,
    test_path: Place,
    class_names: list[str],
    train_path: Place,
    what: str = "test",
) -> None:
    """Refuse a test set without labels, or with a class that no training image has."""
    if not class_names:
        raise ConfigError(
            f"data.test_path={test_path} is for evaluation, and {train_path} has no labels to learn from. Use "
            "data.labels=folders or a list with labels, or leave data.test_path out."
        )
    if test.labels is None:
        raise DataError(
            f"test set {test_path} has no labels. Give a list with labels, or a folder of class folders."
        )
    known = set(class_names)
    if unknown := sorted(set(test.labels) - known):
        raise DataError(
            f"{what} set {test_path} has a class that no training image of {train_path} has: "
            f"{', '.join(map(printable, unknown[:3]))}{', ...' * (len(unknown) > 3)}. The training classes are "
            f"{', '.join(map(printable, class_names[:10]))}{', ...' * (len(class_names) > 10)}."
        )


def without_test_images(class_names: list[str], test: FoundImages) -> list[str]:
    """A remark that names the classes that no test image has."""
    missing = sorted(set(class_names) - set(test.labels or ()))
    if not missing:
        return []
    names = first_of(list(map(printable, missing)))
    return [
        f"classes without a test image: {names} (add some; or evaluate with --untested leave_out, in the file of a "
        "grid untested: leave_out)"
    ]


def refuse_overlap(train: FoundImages, test: FoundImages) -> None:
    """DataError where a training image is also a test image, links resolved."""
    trained_on = set(_places(train))
    if shared := [
        path for path, place in zip(test.paths, _places(test), strict=True) if place in trained_on
    ]:
        raise DataError(
            f"{len(shared)} of {len(test.paths)} test images are training images as well (first: "
            f"{printable(shared[0])}). Keep the test set outside of the training images."
        )


def _places(found: FoundImages) -> list[tuple[str, int]]:
    """Where each image is: its file, with links to folders and shards resolved, and the first byte in it."""
    root = os.path.realpath(found.root)
    if found.boxes is not None:
        files = [os.path.join(root, file) for file in found.boxes.files]
        return [
            (f"{file}#{written(box)}", 0)
            for file, box in zip(files, found.boxes.corners.tolist(), strict=True)
        ]
    if found.members is None:
        return [(os.path.join(root, path), 0) for path in found.paths]
    files = [os.path.realpath(os.path.join(root, shard)) for shard in found.members.shards]
    where = zip(found.members.shard.tolist(), found.members.start.tolist(), strict=True)
    return [(files[shard], start) for shard, start in where]
