"""Estimate a ranking's quality from the collection alone: numbers, and no verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from sdclr.evaluation.rarity import (
    SCORES,
    agreement,
    spread,
    stability_over_dims,
    stability_over_images,
)
from sdclr.evaluation.rarity.judging import Flags, Labels, judged
from sdclr.presentation.mined import RankingQuality
from sdclr.safe_text import counted, shown


def estimated(
    features: Tensor, scores: Mapping[str, Tensor]
) -> tuple[dict[str, float], RankingQuality]:
    """The measures by name, and a readable sentence.

    ``scores``: the ranking one comes first. Orders, which are not degrees of rarity, are left out
    of the agreement.
    """
    orders = {name for name, row in SCORES.items() if row.is_order}
    degrees = {name: score for name, score in scores.items() if name not in orders}
    measures = {
        "stability_over_images": stability_over_images(features),
        "spread": spread(next(iter(scores.values()))),
    }
    if features.shape[1] > 1:
        measures["stability_over_features"] = stability_over_dims(features)
    if len(degrees) > 1:
        measures["agreement"] = agreement(degrees)
    measures = {name: round(value, 4) for name, value in measures.items()}
    parts = [f"between random thirds of the images {measures['stability_over_images']:.2f}"]
    if "stability_over_features" in measures:
        parts.append(f"between halves of the features {measures['stability_over_features']:.2f}")
    sentence = (
        "Whether this ranking beats chance cannot be known without labels. Stability of the density of these features, "
        f"whatever the score: rank correlation {', '.join(parts)}. A stable ranking can still rank the wrong thing; "
        "look at the first images."
    )
    return measures, RankingQuality(better_than_chance=None, sentence=sentence)


def judged_by_labels(
    score: Tensor,
    labels: Labels,
    class_names: Sequence[str],
    *,
    groups: Labels | None = None,
    is_copy: Flags | None = None,
) -> RankingQuality:
    """Judge the ranking by the known labels, which no score has seen.

    ``groups`` int64 [N]: images of one group are not independent. ``is_copy`` bool [N]: these are left out.
    """
    kept = np.ones(len(labels), dtype=np.bool_) if is_copy is None else ~is_copy
    found = judged(score.numpy()[kept], labels[kept], None if groups is None else groups[kept])
    names = ", ".join(shown(class_names[c], 40) for c in found.few[:5])
    names += ", ..." * (len(found.few) > 5)
    outside = found.p_value < 0.05 and not found.low <= 0.5 <= found.high
    better = found.auroc > 0.5 if outside else None
    verdict = {
        True: "By the labels that are known it beats chance",
        False: "By the labels that are known it is worse than chance",
        None: "By the labels that are known it cannot be told from chance",
    }[better]
    test, how = "Mann-Whitney p", "" if kept.all() else " An image and its copies count once."
    if found.num_groups is not None:
        test = "p"
        how += f" Whole groups were resampled: {counted(found.num_groups, 'group')} with images of these classes."
    sentence = (
        f"{verdict}: AUROC {found.auroc:.2f} (95 % interval {found.low:.2f} to {found.high:.2f}, {test} = "
        f"{found.p_value:.2g}; chance is .50) for the {counted(found.num_images, 'image')} of the few classes, the "
        f"last third by size ({names}). No score has seen a label.{how}"
    )
    return RankingQuality(better_than_chance=better, sentence=sentence)


def not_rarity(name: str) -> RankingQuality:
    """For a ranking by likeness or feedback, which does not claim to find what is rare."""
    return RankingQuality(
        better_than_chance=None,
        sentence=f"Ranked by {name}, not by rarity: how good that is shows in the first images.",
    )
