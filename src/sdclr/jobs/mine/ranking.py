"""Features and looks of N images -> MinedImages: copies folded, junk set aside, scores, groups, order.

N images, F feature dim.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.rarity import (
    DEFAULT,
    DEFAULT_ORDER,
    SCORES,
    Evidence,
    junk_flags,
    look_alike,
    near_duplicates,
    nearest_in,
    rarest_first,
    rarest_group_first,
    represented,
)
from sdclr.evaluation.rarity.cells import Approximation
from sdclr.evaluation.rarity.duplicates import (
    COPY_RULES,
    EQUAL,
    NEAR,
    rules_of_collection,
)
from sdclr.evaluation.rarity.evidence import ENOUGH_NEIGHBOURS, EXACT_UP_TO, MOST_NEIGHBOURS
from sdclr.evaluation.rarity.judging import Labels
from sdclr.evaluation.rarity.maps import map_of
from sdclr.evaluation.rarity.neighbours import most_neighbours
from sdclr.image_records import ImageRecords
from sdclr.jobs.mine.estimate import estimated, judged_by_labels, not_rarity
from sdclr.jobs.mine.looking import Looks, junk_measures
from sdclr.presentation.mined import Flags, MinedImages, RankingQuality
from sdclr.presentation.progress import AnyProgress
from sdclr.run.files import FEWEST_MINED
from sdclr.safe_text import counted, shown

SEARCHED = 80
"""Neighbours searched for each image: 50 for the default score, plus up to 30 that may be copies of it."""
SAMPLED = 5000
"""Images whose neighbourhoods show how alike the hashes of different pictures are."""

Order = Literal["rarest", "kinds"]
"""Order of the groups on a sheet: by the mean score, or by how little a group is like those before it."""


def check_order(text: str) -> Order:
    """Check the name of an order; raises ConfigError for an unknown one."""
    if text not in ("rarest", "kinds"):
        raise ConfigError(f"--order must be rarest or kinds, got {shown(repr(text))}.")
    return cast(Order, text)


OtherScore = Callable[[Tensor, Tensor], tuple[Tensor, str]]
"""Features [N, F] and which images may appear on the sheet, bool [N] -> a score [N], higher = first, and a remark."""


@dataclass(frozen=True)
class RankingOptions:
    """How to rank."""

    score: str = DEFAULT
    extra: Sequence[str] = ()
    """Further scores, for columns."""
    order: Order = "rarest"
    map: str = "pca"
    """A name of rarity's maps."""
    other: OtherScore | None = None
    """A score that ranks instead of ``score``."""
    other_name: str = ""
    labels: Labels | None = None
    """int64 [N], if known: they judge the ranking but do not influence it."""
    class_names: Sequence[str] = ()
    exact_up_to: int = EXACT_UP_TO
    """For more images than this, neighbours are searched approximately."""
    records: ImageRecords | None = None
    """Training records of each image, for the scores that read them."""


@dataclass(frozen=True, eq=False)
class Found:
    """A ranking and how it was made."""

    mined: MinedImages
    copy_rules: list[tuple[float, int]]
    measures: dict[str, float] = field(default_factory=dict)
    """Measures of the ranking's quality from the collection alone."""
    approximations: dict[str, Approximation] = field(default_factory=dict)
    """How approximate each approximate search for neighbours was; empty if none was."""


def require_enough(num_images: int) -> None:
    """Raise DataError for fewer than FEWEST_MINED images."""
    if num_images < FEWEST_MINED:
        raise DataError(
            f"mining compares images with many others and needs at least {FEWEST_MINED}, got {num_images}."
        )


def ranked(
    features: Tensor,
    looks: Looks,
    names: Sequence[str],
    options: RankingOptions,
    show: AnyProgress,
    *,
    title: str = "",
    root: str = "",
    groups: Tensor | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    shown: Flags | None = None,
    remarks: Sequence[str] = (),
) -> Found:
    """Rank images by their ``features`` [N, F] and ``looks`` [N].

    ``groups`` int64 [N]: bursts, tiles and the like; images of one group are not neighbours of each
    other. ``shown`` bool [N]: which may appear on the sheet at all. Raises DataError if nothing can
    be ranked: too few images, equal features, nothing but junk.
    """
    require_enough(len(features))
    junk = junk_flags(junk_measures(looks))
    is_junk = np.logical_or.reduce(list(junk.values()))
    _require_others(junk, is_junk)
    records = options.records
    alone = Evidence(
        features,
        losses=None if records is None else records.losses,
        masses=None if records is None else records.masses,
        searched=SEARCHED,
        watch=_watch(show),
        exact_up_to=options.exact_up_to,
    )
    copy_of, rules, fold_remarks = _folded(alone, looks, is_junk, groups)
    alike = look_alike(alone.neighbours(SEARCHED), copy_of)
    evidence = _without_copies(alone, copy_of, groups)
    del alone  # its neighbours are large
    is_copy = copy_of.numpy() != np.arange(len(copy_of))
    fit = torch.from_numpy(~is_copy & ~is_junk)
    listable = fit if shown is None else fit & _without_hidden_copy(copy_of, shown)
    score_name, score, components, note = _scores(evidence, options, listable, show)
    fewer = _few_to_compare(evidence, [score_name, *components])
    by_kinds = options.order == "kinds"
    leading = components.get(DEFAULT_ORDER, score) if by_kinds else score
    group, group_score = rarest_group_first(alike, leading, fit, by="best" if by_kinds else "mean")
    placed = map_of(evidence.components, options.map)
    sheet = _sheet(group, score, listable)
    measures, quality = _judged(features, score_name, score, components, options, groups, is_copy)
    mined = MinedImages(
        title=title,
        names=names,
        root=root,
        score_name=score_name,
        order_name=_order_name(options.order, score_name),
        rarest_first=not by_kinds,
        score=score.numpy(),
        rank=_ranks(score),
        components={name: values.numpy() for name, values in components.items()},
        group=group.numpy(),
        group_score=group_score.numpy(),
        duplicate_of=copy_of.numpy(),
        junk=junk,
        sheet=sheet,
        place=placed.place,
        map_words=placed.words,
        quality=quality,
        columns=dict(columns or {}),
        remarks=[
            *remarks,
            *fold_remarks,
            *_approximate(evidence),
            *fewer,
            *note,
            *_nothing_left(sheet),
        ],
        ranks_rarity=options.other is None,
    )
    return Found(mined, rules, measures, evidence.approximations)


def _nothing_left(sheet: npt.NDArray[np.int64]) -> list[str]:
    """A remark if no image is left to show."""
    if len(sheet):
        return []
    return [
        "No image is left for the sheet: each that could be on it is a copy of another one, or suspected junk. The "
        "table has all of them."
    ]


def _require_others(junk: Mapping[str, Flags], is_junk: Flags) -> None:
    """Raise DataError if all images are suspected junk."""
    if not is_junk.all():
        return
    kinds = ", ".join(f"{int(flags.sum())} {kind}" for kind, flags in junk.items())
    raise DataError(
        f"all {len(is_junk)} images are suspected junk ({kinds}), so there is nothing to rank. "
        "Look at the images, and at data.grey_bits if they have 16 bits."
    )


def _judged(
    features: Tensor,
    score_name: str,
    score: Tensor,
    components: Mapping[str, Tensor],
    options: RankingOptions,
    groups: Tensor | None,
    is_copy: Flags,
) -> tuple[dict[str, float], RankingQuality]:
    """How well the score finds what is rare: by the labels if there are any, otherwise estimated."""
    if options.other is not None:
        return {}, not_rarity(score_name)
    measures, quality = estimated(features, {score_name: score, **components})
    if options.labels is not None and len(np.unique(options.labels[~is_copy])) > 1:
        quality = judged_by_labels(
            score,
            options.labels,
            options.class_names,
            groups=None if groups is None else groups.numpy(),
            is_copy=is_copy,
        )
    return measures, quality


def _order_name(order: Order, score_name: str) -> str:
    inside = f"within a group by {score_name}"
    if order == "kinds":
        return (
            f"groups of images that look alike, the one that is least like all before it first ({DEFAULT_ORDER}), so "
            f"that many kinds are seen early; {inside}"
        )
    return f"groups of images that look alike, by the mean {score_name} of each; {inside}"


def _watch(show: AnyProgress) -> Callable[[str, int], Callable[[int], None]]:
    """Progress of the searches for neighbours, which take the longest."""

    def begin(what: str, num_rows: int) -> Callable[[int], None]:
        if what == "cells":
            task = show.add("cells to look for neighbours in", total=num_rows, unit="rows")
        else:
            task = show.add(f"{what} of {num_rows} images", total=num_rows, unit="images")
        left = num_rows

        def advance(done: int) -> None:
            nonlocal left
            left -= done
            show.advance(task, done)
            if left <= 0:
                show.finish(task)

        return advance

    return begin


def _folded(
    evidence: Evidence, looks: Looks, is_junk: Flags, groups: Tensor | None
) -> tuple[Tensor, list[tuple[float, int]], list[str]]:
    """The representative of each image, the rules by which copies were found, and remarks on them."""
    n = len(looks)
    hashes = np.ascontiguousarray(looks["hash"])
    near = evidence.neighbours(min(NEAR, n - 1))
    pictures = torch.from_numpy(np.flatnonzero(~is_junk))  # blank images are always alike
    places = torch.linspace(0, len(pictures) - 1, min(len(pictures), SAMPLED)).long().unique()
    sample = pictures[places]
    around = nearest_in(evidence.unit, evidence.unit[sample], min(MOST_NEIGHBOURS, n))
    rules = rules_of_collection(near, around, hashes, sample)
    copies = near_duplicates(near, hashes, [*rules, EQUAL])
    remarks = []
    if int(torch.bincount(copies).max()) == len(copies):
        copies, rules = torch.arange(len(copies)), []
    if not rules:
        remarks.append(
            "Near-duplicates are not folded, only what is equal: different pictures of this "
            "collection have hashes as alike as those of copies."
        )
    elif rules != list(COPY_RULES):
        bits = " and ".join(str(bits) for _, bits in rules)
        usual = " and ".join(str(bits) for _, bits in COPY_RULES)
        remarks.append(
            f"Different pictures of this collection have hashes that are alike, so two count as "
            f"copies only where at most {bits} bits differ (usually {usual}); some copies are not "
            "folded, and some of those that are may only look alike."
        )
    if groups is not None and len(groups) != len(copies):
        raise DataError(f"got {len(groups)} groups for {len(copies)} images; give one an image.")
    return represented(copies, is_junk), rules, remarks


_READ_FOR = {"unit": "scores and copies", "directions": DEFAULT_ORDER, "white": "whitened scores"}


def _approximate(evidence: Evidence) -> list[str]:
    """A remark if neighbours were searched approximately, and a warning if many were missed."""
    found = evidence.approximations
    if not found:
        return []
    searches = [f"for {_READ_FOR.get(name, name)} {one.in_words()}" for name, one in found.items()]
    counts = f"{evidence.num_images:,} images are more than {evidence.exact_up_to:,}"
    remark = f"Neighbours were searched approximately, as {counts}: {'; '.join(searches)}."
    if any(one.is_doubtful for one in found.values()):
        warnings.warn(
            f"{remark} That is few, so scores, copies and groups may be off. --exact-up-to "
            f"{evidence.num_images} searches exactly, in time that grows with the square of the "
            "number of images.",
            stacklevel=2,
        )
    return [remark]


def _few_to_compare(evidence: Evidence, scores: Sequence[str]) -> list[str]:
    """Remarks if a large group, or few images, leave so few neighbours that the meaning of scores changes."""
    usual = min(ENOUGH_NEIGHBOURS, evidence.num_images - 1)
    most = most_neighbours(evidence.num_images, evidence.groups)
    if most >= usual // 2:
        compared_with = {name: SCORES[name].neighbours for name in scores if name in SCORES}
        return [
            f"{name} compares with the {k} nearest images, but there are only {most} here: it is the mean over these."
            for name, k in compared_with.items()
            if k > most
        ]
    return [
        f"Every image is compared with {counted(most, 'other')} at most, and not with {usual}: the largest group, or "
        "set of copies, leaves its images no more. Finer groups leave more."
    ]


def _without_copies(evidence: Evidence, copy_of: Tensor, groups: Tensor | None) -> Evidence:
    """The evidence in which copies, and images of one group, are not neighbours of each other."""
    if groups is None:
        if (copy_of == torch.arange(len(copy_of))).all():
            return evidence
        return evidence.with_groups(copy_of)
    both = torch.stack([groups, copy_of], dim=1)
    try:
        return evidence.with_groups(both)
    except DataError:  # an image has copies in all groups but its own
        return evidence.with_groups(groups)


def _without_hidden_copy(copy_of: Tensor, shown: Flags) -> Tensor:
    """Images all of whose copies may be shown, bool [N]: a copy of an image of the earlier collection is not new."""
    hidden = torch.zeros(len(shown), dtype=torch.bool)
    hidden[copy_of[torch.from_numpy(~shown)]] = True
    return ~hidden[copy_of]


def _scores(
    evidence: Evidence, options: RankingOptions, listable: Tensor, show: AnyProgress
) -> tuple[str, Tensor, dict[str, Tensor], list[str]]:
    """Name and values of the ranking score, the other scores by name, and remarks."""
    wanted = [options.score, *options.extra, DEFAULT, DEFAULT_ORDER]
    names = list(dict.fromkeys(wanted))
    rows = {name: SCORES.require(name) for name in names}
    task = show.add(f"{counted(len(names), 'score')}", total=len(names), unit="scores")
    found: dict[str, Tensor] = {}
    for name, row in rows.items():
        found[name] = row.score(evidence)
        show.advance(task, 1, note=name)
    show.finish(task)
    if options.other is None:
        return options.score, found.pop(options.score), found, []
    assert evidence.features is not None
    score, note = options.other(evidence.features, listable)
    return options.other_name, score.double(), found, [note] if note else []


def _ranks(score: Tensor) -> npt.NDArray[np.int64]:
    ranks = np.empty(len(score), dtype=np.int64)
    ranks[rarest_first(score).numpy()] = np.arange(1, len(score) + 1)
    return ranks


def _sheet(group: Tensor, score: Tensor, listable: Tensor) -> npt.NDArray[np.int64]:
    order = np.lexsort((-score.numpy(), group.numpy()))
    rows: npt.NDArray[np.int64] = order[listable.numpy()[order]]
    return rows
