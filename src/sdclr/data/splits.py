"""Long-tailed splits with the structure of the authors' lists, for any labelled data set, from a seed.

N images, C classes. For every class, ONE random permutation of its images (validation held out first) is cut three
times: the few-shot set S_b, the balanced twin D_b and the long-tailed set D_i are prefixes of it, so both contain S_b.
A split is a random class order plus these permutations. Plain labels and numbers in, positions out; this file opens no
images. The authors' own lists are read by :mod:`sdclr.data.sources.split_files`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from sdclr.compute.stateless_random import Stream, derive, permutation
from sdclr.errors import ConfigError
from sdclr.safe_text import shown

Profile = Literal["exponential", "pareto"]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Positions (int64) into one labelled training set, and where they came from.

    >>> split = draw_long_tail([0] * 40 + [1] * 40, imbalance_ratio=4)
    >>> len(split.long_tail), len(split.balanced), split.source
    (50, 50, 'generated')
    """

    long_tail: Positions
    """D_i, the long-tailed set: what pre-training sees."""
    balanced: Positions
    """D_b, as many images as D_i (rounded down to equal classes); empty for a set as given."""
    few_shot: Positions
    """S_b, balanced, with as many images per class as D_i's rarest class has."""
    train: Positions
    """Everything but validation: what the linear probe trains on."""
    validation: Positions
    """Held out from all of the above; probes choose their epoch or regularisation on it."""
    number: int
    """Which split of the family this is, from 1."""
    source: Literal["generated", "authors' lists", "as given"]
    seed: int | None = None
    """Seed of a generated split, and of what is held out or cut from a set as given."""
    profile: str | None = None
    imbalance_ratio: float | None = None

    def subset(self, name: str) -> Positions:
        """The positions of long_tail, balanced, few_shot, train or validation."""
        return getattr(self, name)

    def counts(self, name: str, labels: Positions, num_classes: int) -> list[int]:
        """Images of each class [C] in one subset."""
        return np.bincount(labels[self.subset(name)], minlength=num_classes).tolist()

    @property
    def fingerprint(self) -> str:
        """16 hex digits over every position of every subset: equal fingerprints, equal positions."""
        digest = hashlib.sha256()
        for name in SUBSETS:
            positions = self.subset(name)
            digest.update(f"{name}:{len(positions)};".encode())
            digest.update(np.ascontiguousarray(positions, dtype="<i8").tobytes())
        return digest.hexdigest()[:16]

    def manifest(self, labels: Positions, num_classes: int) -> dict[str, Any]:
        """What a reader needs to know and to check: counts per class, origin, fingerprint."""
        return {
            "number": self.number,
            "source": self.source,
            "seed": self.seed,
            "profile": self.profile,
            "imbalance_ratio": self.imbalance_ratio,
            "split_fingerprint": self.fingerprint,
            "counts": {name: self.counts(name, labels, num_classes) for name in SUBSETS},
        }


SUBSETS = ("long_tail", "balanced", "few_shot", "train", "validation")


def class_counts(
    num_classes: int,
    largest: int,
    imbalance_ratio: float,
    profile: Profile = "exponential",
    pareto_alpha: float = 6.0,
) -> list[int]:
    """Images per class, head to tail, from ``largest`` down to about ``largest / imbalance_ratio``.

    ``exponential``: int(largest * ratio ** (-i / (C - 1))), the authors' CIFAR counts; int() truncates. ``pareto``:
    the C quantiles of a Lomax distribution with ``pareto_alpha``, scaled to ``largest`` and floored at
    largest / ratio: the shape of ImageNet-LT (alpha 6, ratio 256, largest 1280).
    """
    if num_classes < 2:
        raise ConfigError(f"a long tail needs at least 2 classes, got {num_classes}.")
    if not imbalance_ratio >= 1:
        raise ConfigError(
            f"data.imbalance_ratio must be at least 1 (n_max / n_min), got {imbalance_ratio}."
        )
    rank = np.arange(num_classes)
    if profile == "exponential":
        # the authors' expression, term for term: int() of a float is sensitive to the last bit
        counts = [
            int(largest * (1 / imbalance_ratio) ** (i / (num_classes - 1.0)))
            for i in range(num_classes)
        ]
    elif profile == "pareto":
        tail = (rank + 1) / (num_classes + 1)  # upper-tail probabilities, rarest quantile first
        size = tail ** (-1 / pareto_alpha) - 1
        # divide first: for the head class the ratio is exactly 1
        scaled = (largest * (size / size[0])).astype(int)
        counts = np.maximum(int(largest / imbalance_ratio), scaled).tolist()
    else:
        raise ConfigError(f"data.profile must be exponential or pareto, got {profile!r}.")
    if counts[-1] < 1:
        raise ConfigError(
            f"data.imbalance_ratio={imbalance_ratio:g} leaves the rarest class without an image: the largest class "
            f"would have {largest}, as many as the smallest class of the data. Use a ratio of at most {largest} or, "
            "of arrays that are long-tailed already, data.subset=all, which takes them as they are."
        )
    return counts


def draw_long_tail(
    labels: Sequence[int] | npt.NDArray[Any] | torch.Tensor,
    *,
    imbalance_ratio: float = 100,
    profile: Profile = "exponential",
    validation_per_class: int = 0,
    seed: int = 1,
    validation_seed: int = 0,
) -> Split:
    """Draw a long-tailed split of a labelled data set.

    ``labels``: [N] class ids 0 .. C - 1, every class present. ``validation_per_class`` images of each class are held
    out first, by ``validation_seed`` alone, so that all splits of a family share them. The head class gets as many
    images as the smallest class has left. Raises ConfigError when the numbers do not fit the data.

    >>> labels = torch.arange(100) % 5  # 20 images of each of 5 classes
    >>> split = draw_long_tail(labels, imbalance_ratio=10, seed=1)
    >>> sorted(torch.bincount(labels[split.long_tail]).tolist(), reverse=True)
    [20, 11, 6, 3, 2]
    """
    classes = checked_classes(labels)
    num_classes = int(classes.max()) + 1
    largest = _smallest_class(classes, validation_per_class)
    by_rank = class_counts(num_classes, largest, imbalance_ratio, profile)
    if profile == "pareto" and by_rank[0] / by_rank[-1] < 0.9 * imbalance_ratio:
        warnings.warn(
            f"data.profile=pareto reaches an imbalance ratio of {by_rank[0] / by_rank[-1]:.1f} with {num_classes} "
            f"classes, not {imbalance_ratio:g}: there the ratio is a floor for the rarest classes.",
            stacklevel=2,
        )
    order = permutation(derive(seed, Stream.CLASS_ORDER), num_classes).tolist()  # head to tail
    count_of = dict(zip(order, by_rank, strict=True))
    per_class_balanced, per_class_few = sum(by_rank) // num_classes, min(by_rank)
    parts: dict[str, list[Positions]] = {name: [] for name in SUBSETS}
    for c, members in enumerate(members_of_classes(classes)):
        validation, rest, shuffled = _shuffle_class(
            members, c, validation_per_class, seed, validation_seed
        )
        parts["validation"].append(validation)
        parts["train"].append(rest)
        parts["long_tail"].append(shuffled[: count_of[c]])
        parts["balanced"].append(shuffled[:per_class_balanced])
        parts["few_shot"].append(shuffled[:per_class_few])
    positions = {name: np.concatenate(arrays).astype(np.int64) for name, arrays in parts.items()}
    return Split(
        **positions,
        number=seed,
        source="generated",
        seed=seed,
        profile=profile,
        imbalance_ratio=float(imbalance_ratio),
    )


def natural_split(
    labels: Sequence[int] | npt.NDArray[Any] | torch.Tensor,
    *,
    validation_per_class: int = 0,
    validation: Positions | None = None,
    groups: Positions | None = None,
    seed: int = 1,
    validation_seed: int = 0,
    unusable: Positions | None = None,
) -> Split:
    """The split of a labelled set that is taken as it is: D_i is every image but validation, in the set's own order.

    Images are held out and cut as by :func:`draw_long_tail`: S_b has as many images per class as the rarest class has
    left. There is no D_b: a balanced set as large as D_i does not exist. ``validation``: the images to hold out, where
    they are known; else ``validation_per_class`` are drawn. ``groups`` int64 [N]: of images that belong together (a
    burst, a patient) all or none are held out, so more than ``validation_per_class`` of a class may be. ``unusable``:
    images that S_b must not contain; others of their class replace them, and S_b shrinks where the rarest class has too
    few. Raises ConfigError when the numbers do not fit the data.
    """
    classes = checked_classes(labels)
    if validation is None and groups is not None and validation_per_class > 0:
        validation = hold_out_groups(classes, groups, validation_per_class, validation_seed)
    if validation is None:
        per_class_few = _smallest_class(classes, validation_per_class)
    else:
        per_class_few = int(
            np.bincount(np.delete(classes, validation), minlength=int(classes.max()) + 1).min()
        )
    left_out = _flags(len(classes), unusable)
    is_held_out = None if validation is None else _flags(len(classes), validation)
    held_out, ordered = [], []
    for c, members in enumerate(members_of_classes(classes)):
        of_class, _, shuffled = _shuffle_class(
            members, c, validation_per_class, seed, validation_seed, is_held_out
        )
        held_out.append(of_class)
        ordered.append(shuffled[~left_out[shuffled]])
    # a class without usable images is not in S_b
    present = [len(one) for one in ordered if len(one)]
    per_class_few = min([per_class_few, *present])
    few_shot = [one[:per_class_few] for one in ordered]
    train = np.flatnonzero(~_flags(len(classes), np.concatenate(held_out))).astype(np.int64)
    return Split(
        long_tail=train,
        balanced=np.zeros(0, dtype=np.int64),
        few_shot=np.concatenate(few_shot),
        train=train,
        validation=np.concatenate(held_out),
        number=seed,
        source="as given",
        seed=seed,
    )


def hold_out_groups(
    classes: npt.NDArray[Any], groups: Positions, per_class: int, seed: int = 0
) -> Positions:
    """Positions of whole groups with at least ``per_class`` images of each class, ascending.

    ``classes`` and ``groups`` int64 [N]. The smallest class chooses first, at random; a group that
    would leave nothing of a class to train on is passed over. Raises ConfigError where a class has
    too few groups for it.

    >>> hold_out_groups(np.array([0, 0, 0, 0]), np.array([5, 5, 7, 7]), per_class=1).tolist()
    [2, 3]
    """
    if len(groups) != len(classes):
        raise ConfigError(f"got {len(groups)} groups for {len(classes)} images; give one an image.")
    counts = np.bincount(classes)
    wanted = np.full(len(counts), per_class)
    held_out = _held_out_groups(classes, groups, wanted, seed)
    members = members_of_classes(classes)
    for c in np.argsort(counts, kind="stable").tolist():
        of_class = np.unique(groups[members[c]])
        if (found := int(held_out[members[c]].sum())) < per_class:
            raise ConfigError(
                f"data.validation_per_class={per_class}: class {c} has {counts[c]} images in "
                f"{len(of_class)} groups, and whole groups of {found} can be held out at most with "
                "something left to train on. Hold out fewer, or group them finer (data.group_by)."
            )
    return np.flatnonzero(held_out)


def _held_out_groups(
    classes: npt.NDArray[Any], groups: Positions, wanted: Positions, seed: int
) -> npt.NDArray[np.bool_]:
    """Which images [N] are in whole groups with ``wanted`` [C] images of each class, or as close to that as possible.

    Groups that fit are taken first, at random; where a class still lacks images, the group that exceeds the wanted
    numbers least. No class is taken completely.
    """
    counts = np.bincount(classes)
    _, number = np.unique(groups, return_inverse=True)
    rows_of = members_of_classes(number)
    per_group = [np.unique(classes[rows], return_counts=True) for rows in rows_of]
    members = members_of_classes(classes)
    held = np.zeros(len(counts), dtype=np.int64)
    taken: set[int] = set()

    def excess(group: int) -> int | None:
        """How many images too many there would be with this group; None where nothing of a class would be left."""
        its_classes, sizes = per_group[group]
        after = held[its_classes] + sizes
        if (after >= counts[its_classes]).any():
            return None
        return int(np.maximum(after - wanted[its_classes], 0).sum())

    def take(group: int) -> None:
        its_classes, sizes = per_group[group]
        held[its_classes] += sizes
        taken.add(group)

    for c in np.argsort(counts, kind="stable").tolist():
        of_class = np.unique(number[members[c]])
        order = permutation(derive(seed, Stream.VALIDATION, c), len(of_class)).numpy()
        left = [group for group in of_class[order].tolist() if group not in taken]
        for group in left:
            if held[c] < wanted[c] and excess(group) == 0:
                take(group)
        while held[c] < wanted[c]:
            possible = [(excess(group), group) for group in left if group not in taken]
            found = [(much, group) for much, group in possible if much is not None]
            if not found:
                break
            take(min(found, key=lambda one: one[0])[1])
    return np.isin(number, list(taken))


def hold_out_share(
    classes: Positions, share: float, *, seed: int = 0, groups: Positions | None = None
) -> Positions:
    """Positions of a share of each class, ascending; none of a class with too few images.

    ``classes`` int64 [N]. Of n images of a class share * n are held out, rounded half up, and at least one is left to
    train on. ``groups`` int64 [N]: of images that belong together all or none are held out, so the shares are met only
    as closely as whole groups allow. A group that would leave nothing of a class to train on is passed over.

    >>> hold_out_share(np.array([0] * 10 + [1] * 3 + [2] * 2), 0.2).tolist()
    [2, 7, 12]
    """
    counts = np.bincount(classes)
    wanted = np.minimum(np.floor(counts * share + 0.5).astype(np.int64), np.maximum(counts - 1, 0))
    if groups is not None:
        return np.flatnonzero(_held_out_groups(classes, groups, wanted, seed))
    held_out = []
    for c, (members, num) in enumerate(
        zip(members_of_classes(classes), wanted.tolist(), strict=True)
    ):
        order = permutation(derive(seed, Stream.VALIDATION, c), len(members)).numpy()
        held_out.append(members[order[:num]])
    return np.sort(np.concatenate(held_out))


def members_of_classes(
    classes: npt.NDArray[Any], num_classes: int | None = None
) -> list[Positions]:
    """The positions of each class, ascending: one sort, however many classes there are.

    >>> [members.tolist() for members in members_of_classes(np.array([1, 0, 1]))]
    [[1], [0, 2]]
    """
    counts = np.bincount(classes, minlength=num_classes or 0)
    order = np.argsort(classes, kind="stable").astype(np.int64)
    return np.split(order, np.cumsum(counts)[:-1])


def checked_classes(labels: Sequence[int] | npt.NDArray[Any] | torch.Tensor) -> npt.NDArray[Any]:
    """Class ids [N], 0 .. C - 1, every one of them present; ConfigError otherwise."""
    classes = np.asarray(labels)
    if (
        classes.ndim != 1
        or not np.issubdtype(classes.dtype, np.integer)
        or len(classes) == 0
        or classes.min() < 0
    ):
        raise ConfigError(
            f"labels must be a [N] array of class ids from 0, got {classes.dtype} {classes.shape}."
        )
    available = np.bincount(classes)
    if (available == 0).any():
        raise ConfigError(
            f"class {int(np.argmin(available))} has no image; number the classes 0 .. C - 1."
        )
    return classes


def _smallest_class(classes: npt.NDArray[Any], validation_per_class: int) -> int:
    """Images of the smallest class once validation is held out; ConfigError if there are none."""
    is_whole = isinstance(validation_per_class, int | np.integer)
    if not is_whole or isinstance(validation_per_class, bool) or validation_per_class < 0:
        raise ConfigError(
            "data.validation_per_class must be a whole number of 0 or more, got "
            f"{shown(repr(validation_per_class), 40)}."
        )
    smallest = int(np.bincount(classes).min())
    if smallest <= validation_per_class:
        raise ConfigError(
            f"data.validation_per_class={validation_per_class} leaves nothing to train on: "
            f"the smallest class has {smallest} images. Set it lower; 0 holds none out."
        )
    return smallest - validation_per_class


def _flags(num: int, positions: Positions | None) -> npt.NDArray[np.bool_]:
    """bool [num]: whether a position is among these."""
    flags = np.zeros(num, dtype=bool)
    if positions is not None:
        flags[positions] = True
    return flags


def _shuffle_class(
    members: Positions,
    c: int,
    validation_per_class: int,
    seed: int,
    validation_seed: int,
    is_held_out: npt.NDArray[np.bool_] | None = None,
) -> tuple[Positions, Positions, Positions]:
    """Validation and the rest of one class, both in order, and the rest in the random order that is cut."""
    if is_held_out is None:
        order = permutation(derive(validation_seed, Stream.VALIDATION, c), len(members)).numpy()
        held_out = order < validation_per_class
    else:
        held_out = is_held_out[members]
    rest = members[~held_out]
    shuffled = rest[permutation(derive(seed, Stream.IMAGE_ORDER, c), len(rest)).numpy()]
    return members[held_out], rest, shuffled
