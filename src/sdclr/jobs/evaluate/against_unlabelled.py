"""Compare a run with its rivals without labels: what can be measured, and which labels would give the answer.

RUN/to_label.csv lists the images to label; once written, it belongs to the user.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from sdclr.compute.stateless_random import Stream, derive, permutation
from sdclr.data import Images
from sdclr.data.grouping import group_images
from sdclr.data.trained_images import sampled_images, unseen_views
from sdclr.evaluation.without_labels import (
    WithoutLabels,
    measure_without_labels,
    sample_features,
)
from sdclr.jobs.evaluate.job import placed
from sdclr.presentation.progress import AnyProgress
from sdclr.run import Run
from sdclr.run.files import TO_LABEL_FILE
from sdclr.safe_text import command, csv_row
from sdclr.settings import PretrainConfig
from sdclr.storage.durable_files import write_atomically

SAMPLE = 512
"""The most images on which networks are compared."""
SMALLEST_DIFFERENCE = 0.05
"""The difference between two shares of right images that the proposed labels should resolve."""
ONE_SIDED = 0.25
"""Assumed share of the images that only one of two networks gets right; lower for similar networks."""


def labels_wanted() -> int:
    """How many labelled images resolve SMALLEST_DIFFERENCE: the half-width of a paired 95 % interval then equals it.

    Of the share of right images. The mean over the classes takes more where classes are rare, by how much is not known
    without labels.

    >>> labels_wanted()
    385
    """
    return math.ceil(ONE_SIDED * (1.96 / SMALLEST_DIFFERENCE) ** 2)


def smallest_difference(num_labels: int) -> float:
    """The difference between two shares of right images that so many labels resolve; inverse of :func:`labels_wanted`.

    >>> round(smallest_difference(385), 3), round(smallest_difference(152), 3)
    (0.05, 0.079)
    """
    return 1.96 * math.sqrt(ONE_SIDED / num_labels)


@dataclass(frozen=True)
class Unlabelled:
    """What is known of a run and its rivals without labels."""

    measured: Mapping[str, WithoutLabels]
    """By name, the run first."""
    num_images: int
    """Images they were measured on."""
    to_label: str
    """The file that lists images to label."""
    num_to_label: int
    """Images in it without a label."""
    next_command: str
    num_labelled: int = 0
    """Images in it with a label."""

    def sentences(self) -> list[str]:
        """The answer, what was measured, and what to do."""
        found = ", ".join(
            f"{100 * one.found:.1f} ± {100 * one.found_half_width:.1f} % by {name}"
            for name, one in self.measured.items()
        )
        return [
            "Whether pre-training paid off cannot be known without labels.",
            f"Of {self.num_images} images, this share has its own second view nearest to its first view: {found}. "
            "That is what training optimises, not a proof of use.",
            self._what_to_label(),
        ]

    def _what_to_label(self) -> str:
        if not self.num_to_label:
            return f"{self.to_label} is filled in: measure on its labels."
        points = math.ceil(100 * smallest_difference(self.num_to_label + self.num_labelled))
        more = f"{self.num_to_label} more" if self.num_labelled else f"the {self.num_to_label}"
        return (
            f"Label {more} images that {self.to_label} names: that many labels show whether two shares of right "
            f"images differ by about {points} points. Means over the classes, which are compared here, take more where "
            "classes are rare."
        )

    def to_dict(self) -> dict[str, Any]:
        """For RUN/against.json."""
        return {
            "pairs": [],
            "without_labels": {name: asdict(one) for name, one in self.measured.items()},
            "num_images": self.num_images,
            "to_label": self.to_label,
            "next": self.next_command,
            "verdict": " ".join(self.sentences()),
        }


def compare_without_labels(
    run: Run,
    config: PretrainConfig,
    networks: Mapping[str, tuple[nn.Module, int]],
    device: str,
    show: AnyProgress,
) -> Unlabelled:
    """``networks``: name -> (network, side of its input images), the run's own first."""
    images, _ = sampled_images(run, config.data, SAMPLE, config.seed)
    measured = {}
    for name, (network, size) in networks.items():
        spec = replace(config.views.spec(), size=size)
        views = unseen_views(images, spec, config.seed, epoch=config.epochs)
        pixels = torch.cat([batch.cpu() for batch in images.stills(size)])
        task = show.add(f"features of {name}", total=3 * len(images), unit="images")
        features = sample_features(
            placed(network, device), pixels, views, partial(show.advance, task)
        )
        measured[name] = measure_without_labels(features)
        show.finish(task)
    num, num_labelled = _propose(run, config)
    rivals = ",".join([*networks][1:])
    advised = command(
        "sdclr",
        "evaluate",
        run.folder,
        "--against",
        rivals,
        "--labels",
        run.folder / TO_LABEL_FILE,
    )
    place = str(run.folder / TO_LABEL_FILE)
    return Unlabelled(measured, len(images), place, num, advised, num_labelled)


def _propose(run: Run, config: PretrainConfig) -> tuple[int, int]:
    """Write the images to label, unless the file exists; return how many have no label and how many have one."""
    path = run.folder / TO_LABEL_FILE
    if path.exists():  # it may already contain labels
        text = path.read_text("utf-8", errors="replace")
        header, *rows = [row for row in csv.reader(io.StringIO(text)) if row] or [[]]
        place = header.index("label") if "label" in header else 1
        num_labelled = sum(len(row) > place and bool(row[place].strip()) for row in rows)
        return len(rows) - num_labelled, num_labelled
    images, _ = sampled_images(run, config.data, 2**62, config.seed)
    chosen = _drawn(images, config)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["path", "label"])
    for row in chosen:
        # --labels identifies images in memory by their position
        name = images.names[row] if images.files is not None else row
        writer.writerow([*csv_row([name]), ""])
    write_atomically(path, table.getvalue().encode("utf-8", "surrogateescape"))
    return len(chosen), 0


def _drawn(images: Images, config: PretrainConfig) -> list[int]:
    """Random rows, one from each group before any second one, in the order of the images."""
    order = permutation(derive(config.seed, Stream.EXAMINATION, 1), len(images)).argsort().numpy()
    if config.data.group_by is not None:
        groups = group_images(images, config.data.group_by).of_image[order]
        firsts = np.unique(groups, return_index=True)[1]
        order = np.concatenate([order[np.sort(firsts)], np.delete(order, firsts)])
    return sorted(order[: labels_wanted()].tolist())
