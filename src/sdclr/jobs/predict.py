"""JOB: a classifier + any images -> a label and a confidence for each in one table, streamed and resumable.

N images, C classes. As with embed, finished parts are kept in OUT.partial/ until all are done; the same command resumes
from there. Memory does not grow with N except for the names of the images.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from sdclr.any_progress import AnyProgress, NoProgress
from sdclr.backbones.classifier import BACKBONE_FILE, Classifier, load_classifier
from sdclr.backbones.weights import read_backbone
from sdclr.compute.device import explain_out_of_memory, placed_on, resolve_device
from sdclr.compute.process_state import silenced_warnings
from sdclr.data import BadFile, Data, DataConfig, Images, build_data
from sdclr.data.decoding.decode import printable
from sdclr.data.rows_wanted import rows_wanted
from sdclr.data.sources.split_folders import has_splits
from sdclr.data.usable import skip_advised, usable_images
from sdclr.errors import ConfigError
from sdclr.evaluation.features import extract_features
from sdclr.processes.world import MAY_WRITE, World, shared_work
from sdclr.run.files import CLASSIFIER_FILE
from sdclr.safe_text import counted, shown
from sdclr.storage.output_files import output_file
from sdclr.storage.row_parts import RowParts
from sdclr.storage.table_files import Block, Kind, require_table_suffix, write_table

Part = Literal["train", "test"]


@dataclass(frozen=True)
class Predicted:
    """What was predicted, in numbers."""

    path: Path
    """The table."""
    num_images: int
    num_unreadable: int
    """Those of them whose rows have no label."""
    is_calibrated: bool
    num_right: int | None = None
    """Correct predictions among images with labels of the model's classes; None if there are none."""
    num_known: int | None = None
    """How many readable images have such labels; None if none has."""

    def __fspath__(self) -> str:
        return str(self.path)

    def summary(self) -> str:
        """One line with the main numbers."""
        parts = [counted(self.num_images, "image")]
        if self.num_unreadable:
            parts.append(f"{self.num_unreadable} of them unreadable (column error)")
        if self.num_right is not None and self.num_known:
            num = self.num_known
            interval = binomtest(self.num_right, num).proportion_ci(method="wilson")
            of_all = num == self.num_images - self.num_unreadable
            parts.append(
                f"{self.num_right / num:.1%} right by {'their' if of_all else f'the {num:,} known'} labels "
                f"({interval.low:.1%} to {interval.high:.1%})"
            )
        if not self.is_calibrated:
            parts.append("confidences are not calibrated (column calibrated)")
        return "; ".join(parts)


def predict(
    model: Path | str,
    data: DataConfig,
    out: Path | str,
    *,
    top: int = 1,
    probabilities: bool = False,
    entropy: bool = False,
    device: str = "auto",
    part: Part = "train",
    network: nn.Module | None = None,
    progress: AnyProgress | None = None,
    overwrite: bool = False,
) -> Predicted:
    """Write a label and a confidence for every image of ``data`` to ``out``, a .csv or .parquet.

    ``part``: test predicts the test images of ``data`` instead of the others.

    ``model``: the result of :func:`sdclr.finetune`, or its folder. Columns: ``path``, ``label``, ``confidence``,
    ``calibrated`` (whether the confidence is: the model had validation images), ``label_2``, ``confidence_2``, ... up
    to ``top``, ``entropy`` in nats, with ``probabilities`` ``p_CLASS`` of every class, and ``known_label`` if images
    have labels. Files that cannot be decoded are an error; with data.on_error=skip any number of them become rows with
    an empty label and the cause in the column ``error``, with a warning. An interrupted call resumes where it stopped
    if the model is the same, even if image files have been added, removed or changed since. Raises ConfigError if
    ``out`` exists, unless ``overwrite``.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> model = sdclr.finetune(run, config.data, "models/digits", epochs=20, balance="weights")
    >>> found = sdclr.predict(model, config.data, "predictions.csv", overwrite=True)
    >>> import csv
    >>> with open(found) as file:
    ...     found.num_images, next(csv.reader(file))
    (1437, ['path', 'label', 'confidence', 'calibrated', 'known_label'])
    """
    out, show = Path(out), progress or NoProgress()
    require_table_suffix(out.suffix, shown(out))
    classifier = load_classifier(model, network)
    num_classes = len(classifier.class_names)
    if not 1 <= top <= num_classes:
        raise ConfigError(f"--top must be in 1 .. {num_classes}, the model's classes, got {top}.")
    if part not in ("train", "test"):
        raise ConfigError(f"part must be train or test, got {shown(repr(part))}.")
    if data.store is not None:
        raise ConfigError(
            "data.store saves decoding when images are seen again; predict sees each once. Leave it out."
        )
    with shared_work(f"predict {out.absolute()}") as world:
        where = world.device(resolve_device(device))  # before any work
        if not world.is_first:
            with silenced_warnings():  # the first process gives the same warnings
                found = _found(data, part, out)
                images, _ = usable_images(found.train, _without_limit(data, found), NoProgress())
                with skip_advised(data):
                    _compute(
                        classifier, Path(model), found, images, out, where, NoProgress(), world
                    )
            return Predicted(out, **world.messages.wait_for(_PREDICTED))
        _warn_of_other_reading(classifier, data)
        with output_file(out, overwrite=overwrite), explain_out_of_memory("Use --device cpu."):
            RowParts.require_ours(RowParts.beside(out), "predict")
            world.messages.publish(MAY_WRITE, {})
            found = _found(data, part, out)
            for remark in [*found.remarks, *_folders_are_labels(found, data, classifier)]:
                show.print(remark)
            images, bad = usable_images(
                found.train, _without_limit(data, found), show, fate="get no label"
            )
            with skip_advised(data):
                parts = _compute(classifier, Path(model), found, images, out, where, show, world)
            table = _Table(classifier, found, images, bad, data.on_error == "skip", top)
            columns = table.columns(probabilities=probabilities, entropy=entropy)

            def write(file: IO[bytes]) -> None:
                write_table(file, out.suffix, columns, table.blocks(parts, columns))

            parts.keep_as(out, write, overwrite=overwrite)
        counts: dict[str, Any] = {
            "num_images": len(found.train),
            "num_unreadable": len(bad),
            "is_calibrated": classifier.temperature is not None,
            "num_right": table.num_right,
            "num_known": table.num_known,
        }
        world.messages.publish(_PREDICTED, counts)
    return Predicted(out, **counts)


_PREDICTED = "predicted"


def _found(data: DataConfig, part: Part, out: Path) -> Data:
    """The data with the images of the part as training images. Raises ConfigError if there is no test set."""
    found = build_data(data, exclude=[RowParts.beside(out)])
    if part == "train":
        return found
    if found.test is None:
        _require_no_splits(data, [out])
        raise ConfigError(
            f"{data.name if data.path is None else shown(data.path)} has no test images to predict: a .npz has them as "
            "test_images, folders of splits (data.layout=splits data.labels=folders) as test. Leave --part out."
        )
    return replace(found, train=found.test, test=None)


def _without_limit(data: DataConfig, found: Data) -> DataConfig:
    """Allow any number of skipped files, because files that cannot be decoded keep their rows here, with the cause.

    Unless data.max_skipped differs from its default.
    """
    if data.name != "images" or data.max_skipped != DataConfig.model_fields["max_skipped"].default:
        return data
    return data.with_values({"max_skipped": len(found.train)})


def _require_no_splits(data: DataConfig, exclude: Sequence[Path]) -> None:
    """Raise ConfigError if the folder has test images but was read as a single part."""
    if data.name != "images" or data.path is None or data.layout != "flat":
        return
    if has_splits(Path(data.path), exclude, data.links, data.exclude):
        raise ConfigError(
            f"{shown(data.path)} was read as one set of images, and its sub-folders are the parts of one. Give "
            "data.layout=splits data.labels=folders beside --part test."
        )


def _folders_are_labels(found: Data, data: DataConfig, classifier: Classifier) -> list[str]:
    """A remark if the images are in folders named like the model's classes, but these are not used as labels."""
    if data.name != "images" or found.train.labels is not None:
        return []
    folders = {str(name).partition("/")[0] for name in found.train.names if "/" in str(name)}
    if not folders or not folders <= set(classifier.class_names):
        return []
    return [
        "The folders are named like the model's classes: data.labels=folders counts how many are right."
    ]


def _warn_of_other_reading(classifier: Classifier, data: DataConfig) -> None:
    if data.name != "images":
        return
    for name in ("exif_rotation", "grey_bits"):
        mine, theirs = getattr(data, name), getattr(classifier, name)
        if mine != theirs:
            warnings.warn(
                f"data.{name}={mine}, and the images that this model learned from were read with {theirs}.",
                stacklevel=3,
            )


def _digest_of_weights(model: Path) -> str:
    files = (model / CLASSIFIER_FILE, model / BACKBONE_FILE)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _compute(
    classifier: Classifier,
    model: Path,
    found: Data,
    images: Images,
    out: Path,
    device: torch.device,
    show: AnyProgress,
    world: World,
) -> RowParts:
    """Logits [N, C] of all images, in the order of their collection; each of several processes computes a shard."""
    identity, keys = rows_wanted(found, images)
    parts = RowParts(
        RowParts.beside(out),
        f"predictions {_digest_of_weights(model)} {identity}",
        "predictions",
        keys=keys,
        team=world.messages,
    )
    size = read_backbone(model / BACKBONE_FILE).require_image_size()
    network = placed_on(classifier, device)

    def logits_of(
        places: npt.NDArray[np.int64], advance: Callable[[int], None]
    ) -> npt.NDArray[np.float32]:
        part = images.at(places)
        name = partial(_name, part.names)
        return extract_features(network, part.stills(size), advance, name).float().numpy()

    parts.compute(len(images), f"predictions for {len(images)} images", logits_of, show)
    return parts


def _name(names: Sequence[str], row: int) -> str:
    return printable(str(names[row]))


class _Table:
    """The table of predictions, block by block; rows of unreadable images keep their places."""

    def __init__(
        self,
        classifier: Classifier,
        found: Data,
        images: Images,
        bad: Sequence[BadFile],
        with_errors: bool,
        top: int,
    ) -> None:
        self._classifier, self._top, self._with_errors = classifier, top, with_errors
        self._names = found.train.names
        cause_of = {one.path: one.cause for one in bad}
        self._causes = [cause_of.get(str(name)) for name in self._names] if bad else []
        self._known = None
        if found.train.labels is not None:
            self._known = np.array(found.class_names, dtype=object)[found.train.labels]
        self.num_right: int | None = None
        self.num_known: int | None = None
        self._count_begins()

    def _count_begins(self) -> None:
        """Start counting; only images whose label is a class of the model count. A warning names other labels."""
        if self._known is None:
            return
        counts = Counter(self._known)
        others = sorted(set(counts) - set(self._classifier.class_names))
        if others:
            num = sum(counts[label] for label in others)
            named = ", ".join(shown(label, 40) for label in others[:3]) + ", ..." * (
                len(others) > 3
            )
            warnings.warn(
                f"this model does not know the labels of {counted(num, 'image')} of {len(self._known):,} ({named}): "
                "how many are right is counted for the others only.",
                stacklevel=4,
            )
        if len(others) < len(counts):
            self.num_right = self.num_known = 0

    def columns(self, *, probabilities: bool, entropy: bool) -> dict[str, Kind]:
        """Names and kinds of the columns."""
        columns: dict[str, Kind] = {"path": "text", "label": "text", "confidence": "number"}
        columns["calibrated"] = "flag"
        for place in range(2, self._top + 1):
            columns |= {f"label_{place}": "text", f"confidence_{place}": "number"}
        if entropy:
            columns["entropy"] = "number"
        if probabilities:
            columns |= {f"p_{name}": "number" for name in self._classifier.class_names}
        if self._known is not None:
            columns["known_label"] = "text"
        if self._with_errors:
            columns["error"] = "text"
        return columns

    def blocks(self, parts: RowParts, columns: dict[str, Kind]) -> Iterator[Block]:
        """One block for each part of the logits, with the unreadable images before and between its rows."""
        readable = np.arange(len(self._names))
        if self._causes:
            readable = np.flatnonzero([cause is None for cause in self._causes])
        first = begin = 0
        for logits in parts.parts():
            last = first + len(logits)
            end = len(self._names) if last == len(readable) else int(readable[last - 1]) + 1
            places = readable[first:last] - begin
            yield self._block(torch.from_numpy(logits), places, begin, end, columns)
            first, begin = last, end

    def _block(
        self,
        logits: Tensor,
        places: npt.NDArray[np.int64],
        begin: int,
        end: int,
        columns: dict[str, Kind],
    ) -> Block:
        names = self._classifier.class_names
        shares = self._classifier.probabilities(logits)
        sure, order = shares.topk(self._top, dim=1)
        values: dict[str, list[Any]] = {}
        for place in range(self._top):
            end_of_name = f"_{place + 1}" if place else ""
            values[f"label{end_of_name}"] = [names[c] for c in order[:, place].tolist()]
            values[f"confidence{end_of_name}"] = sure[:, place].tolist()
        values["calibrated"] = [self._classifier.temperature is not None] * len(logits)
        if "entropy" in columns:
            values["entropy"] = torch.special.entr(shares).sum(dim=1).tolist()
        if f"p_{names[0]}" in columns:
            values |= {f"p_{name}": shares[:, c].tolist() for c, name in enumerate(names)}
        spread = {name: _spread(cells, places, end - begin) for name, cells in values.items()}
        whole: dict[str, Sequence[Any]] = {"path": list(self._names[begin:end]), **spread}
        if self._known is not None:
            known = self._known[begin:end].tolist()
            whole["known_label"] = known
            if self.num_right is not None and self.num_known is not None:
                read = [
                    (a, b) for a, b in zip(spread["label"], known, strict=True) if a is not None
                ]
                self.num_right += sum(label == truth for label, truth in read)
                self.num_known += sum(truth in self._classifier.class_names for _, truth in read)
        if self._with_errors:
            whole["error"] = self._causes[begin:end] or [None] * (end - begin)
        return whole


def _spread(cells: list[Any], places: npt.NDArray[np.int64], num: int) -> list[Any]:
    """``cells`` at their places among ``num`` rows; None at the others."""
    if len(cells) == num:
        return cells
    whole = [None] * num
    for place, cell in zip(places.tolist(), cells, strict=True):
        whole[place] = cell
    return whole
