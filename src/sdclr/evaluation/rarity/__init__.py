"""How rare each image of a collection is, without labels: scores, junk, near-duplicates.

N images, F feature dim. Every score is float [N] on the CPU, and HIGHER means rarer. ``SCORES`` is
the table of all scores, ``DEFAULT`` names the one chosen by RareBench (docs/rarebench.md),
``DEFAULT_ORDER`` the order in which a sheet shows images. Opens no files, trains nothing.
"""

from typing import TYPE_CHECKING

from sdclr.lazy_names import names_from

if TYPE_CHECKING:
    from sdclr.evaluation.rarity.alike import look_alike as look_alike
    from sdclr.evaluation.rarity.alike import rarest_group_first as rarest_group_first
    from sdclr.evaluation.rarity.duplicates import alike_by_chance as alike_by_chance
    from sdclr.evaluation.rarity.duplicates import fold as fold
    from sdclr.evaluation.rarity.duplicates import near_duplicates as near_duplicates
    from sdclr.evaluation.rarity.duplicates import perceptual_hashes as perceptual_hashes
    from sdclr.evaluation.rarity.duplicates import represented as represented
    from sdclr.evaluation.rarity.duplicates import trusted_rules as trusted_rules
    from sdclr.evaluation.rarity.evidence import Evidence as Evidence
    from sdclr.evaluation.rarity.junk import JunkMeasures as JunkMeasures
    from sdclr.evaluation.rarity.junk import junk_flags as junk_flags
    from sdclr.evaluation.rarity.junk import measure_junk as measure_junk
    from sdclr.evaluation.rarity.neighbours import Neighbours as Neighbours
    from sdclr.evaluation.rarity.neighbours import merged as merged
    from sdclr.evaluation.rarity.neighbours import nearest as nearest
    from sdclr.evaluation.rarity.neighbours import nearest_in as nearest_in
    from sdclr.evaluation.rarity.neighbours import without_own_group as without_own_group
    from sdclr.evaluation.rarity.order import rarest_first as rarest_first
    from sdclr.evaluation.rarity.preparation import unit_rows as unit_rows
    from sdclr.evaluation.rarity.preparation import whitened as whitened
    from sdclr.evaluation.rarity.quality import agreement as agreement
    from sdclr.evaluation.rarity.quality import spread as spread
    from sdclr.evaluation.rarity.quality import stability_over_dims as stability_over_dims
    from sdclr.evaluation.rarity.quality import stability_over_images as stability_over_images
    from sdclr.evaluation.rarity.table import DEFAULT as DEFAULT
    from sdclr.evaluation.rarity.table import DEFAULT_ORDER as DEFAULT_ORDER
    from sdclr.evaluation.rarity.table import SCORES as SCORES
    from sdclr.evaluation.rarity.table import load_score as load_score
    from sdclr.evaluation.rarity.table import register_score as register_score
    from sdclr.evaluation.rarity.wanted import Feedback as Feedback
    from sdclr.evaluation.rarity.wanted import from_feedback as from_feedback
    from sdclr.evaluation.rarity.wanted import likeness as likeness

_HOMES = {
    "DEFAULT": "table",
    "DEFAULT_ORDER": "table",
    "Evidence": "evidence",
    "JunkMeasures": "junk",
    "Neighbours": "neighbours",
    "SCORES": "table",
    "fold": "duplicates",
    "junk_flags": "junk",
    "measure_junk": "junk",
    "merged": "neighbours",
    "near_duplicates": "duplicates",
    "nearest": "neighbours",
    "nearest_in": "neighbours",
    "perceptual_hashes": "duplicates",
    "rarest_first": "order",
    "register_score": "table",
    "unit_rows": "preparation",
    "whitened": "preparation",
    "load_score": "table",
    "without_own_group": "neighbours",
    "represented": "duplicates",
    "stability_over_images": "quality",
    "stability_over_dims": "quality",
    "spread": "quality",
    "agreement": "quality",
    "alike_by_chance": "duplicates",
    "trusted_rules": "duplicates",
    "Feedback": "wanted",
    "from_feedback": "wanted",
    "likeness": "wanted",
    "rarest_group_first": "alike",
    "look_alike": "alike",
}
__getattr__ = names_from(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
__all__ = sorted(_HOMES)
